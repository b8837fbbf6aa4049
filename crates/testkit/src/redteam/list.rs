//! An IMA list as text, from the entries of the binary form.

use data_encoding::HEXLOWER;

/// The line that `ascii_runtime_measurements` has for an entry of the binary form; `None` where it is none.
pub(super) fn line(mut entry: &[u8]) -> Option<String> {
    let pcr = take_u32(&mut entry)?;
    let digest = entry.split_off(..20)?;
    let template = take(&mut entry)?;
    let mut data = take(&mut entry)?;
    let (named, path) = (take(&mut data)?, take(&mut data)?);
    // "sha256:", a NUL, and the digest.
    let (name, of_file) = named.split_at_checked(named.iter().position(|byte| *byte == 0)? + 1)?;
    let name = std::str::from_utf8(name.get(..name.len() - 1)?).ok()?;
    let path = std::str::from_utf8(path).ok()?.trim_end_matches('\0');
    let template = std::str::from_utf8(template).ok()?;
    let (digest, of_file) = (HEXLOWER.encode(digest), HEXLOWER.encode(of_file));
    Some(format!("{pcr:>2} {digest} {template} {name}{of_file} {path} \n"))
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_u32(bytes)?).ok()?;
    bytes.split_off(..length)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?))
}
