//! EFI device paths as text, in the manner of the UEFI specification (10.6.1.6).
//!
//! The text is for people: no digest covers the path of an image, so that nothing may depend on it.
//! Whoever shows it escapes it.

use std::fmt::Write as _;

use super::Guid;
use super::variable::utf16;
use crate::read::{Reader, Truncated};

/// The path as text, nodes with `/` between them; `None` where it is malformed.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let mut reader = Reader::new(bytes);
    let mut text = String::new();
    for _ in 0..NODES_MAX {
        if reader.is_empty() {
            return Some(text);
        }
        let (kind, subtype, length) = (reader.u8().ok()?, reader.u8().ok()?, reader.u16_le().ok()?);
        let body = reader.bytes(usize::from(length).checked_sub(NODE_HEADER_BYTES)?).ok()?;
        if kind == END {
            return Some(text);
        }
        if !text.is_empty() {
            text.push('/');
        }
        match node(kind, subtype, body) {
            Ok(node) => text.push_str(&node),
            Err(Truncated { .. }) => return None,
        }
    }
    None
}

fn node(kind: u8, subtype: u8, body: &[u8]) -> Result<String, Truncated> {
    let mut reader = Reader::new(body);
    Ok(match (kind, subtype) {
        (HARDWARE, 1) => {
            let (function, device) = (reader.u8()?, reader.u8()?);
            format!("Pci({device:#x},{function:#x})")
        }
        (HARDWARE, 3) => {
            let (memory, start, end) = (reader.u32_le()?, reader.u64_le()?, reader.u64_le()?);
            format!("MemoryMapped({memory:#x},{start:#x},{end:#x})")
        }
        (HARDWARE, 4) => format!("VenHw({})", Guid::read(&mut reader)?),
        (ACPI, 1) => match (reader.u32_le()?, reader.u32_le()?) {
            (PCI_ROOT, unit) => format!("PciRoot({unit:#x})"),
            (hid, unit) => format!("Acpi({hid:#010x},{unit:#x})"),
        },
        (MESSAGING, 2) => format!("Scsi({:#x},{:#x})", reader.u16_le()?, reader.u16_le()?),
        (MESSAGING, 5) => format!("USB({:#x},{:#x})", reader.u8()?, reader.u8()?),
        (MESSAGING, 18) => {
            format!("Sata({:#x},{:#x},{:#x})", reader.u16_le()?, reader.u16_le()?, reader.u16_le()?)
        }
        (MESSAGING, 23) => format!("NVMe({:#x},{:#018x})", reader.u32_le()?, reader.u64_be()?),
        (MESSAGING, 24) => format!("Uri({})", body.escape_ascii()),
        (MEDIA, 1) => hard_drive(&mut reader)?,
        (MEDIA, 3) => format!("VenMedia({})", Guid::read(&mut reader)?),
        (MEDIA, 4) => utf16(body).trim_end_matches('\0').to_owned(),
        (MEDIA, 6) => format!("FvFile({})", Guid::read(&mut reader)?),
        (MEDIA, 7) => format!("Fv({})", Guid::read(&mut reader)?),
        _ => {
            let mut text = format!("Path({kind},{subtype},");
            for byte in body.iter().take(UNKNOWN_BYTES_SHOWN) {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            text + ")"
        }
    })
}

fn hard_drive(reader: &mut Reader<'_>) -> Result<String, Truncated> {
    let (partition, _start, _size) = (reader.u32_le()?, reader.u64_le()?, reader.u64_le()?);
    let signature = Guid::read(reader)?;
    let (_format, signature_type) = (reader.u8()?, reader.u8()?);
    Ok(match signature_type {
        GPT_SIGNATURE => format!("HD({partition},GPT,{signature})"),
        _ => format!("HD({partition},MBR)"),
    })
}

const HARDWARE: u8 = 1;
const ACPI: u8 = 2;
const MESSAGING: u8 = 3;
const MEDIA: u8 = 4;
const END: u8 = 0x7f;
/// EISA id of a PCI root bridge, PNP0A03.
const PCI_ROOT: u32 = 0x0a03_41d0;
const GPT_SIGNATURE: u8 = 2;
const NODE_HEADER_BYTES: usize = 4;
/// Nodes of a path; real ones have some ten.
const NODES_MAX: usize = 64;
/// Bytes of an unknown node that are shown.
const UNKNOWN_BYTES_SHOWN: usize = 32;
