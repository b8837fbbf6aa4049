//! Archives written here, and what is wrong with others.

use proptest::prelude::*;

use super::*;

fn header(path: &str, mode: u32, links: u32, inode: u32, bytes: usize) -> Vec<u8> {
    let path_bytes = path.len() + 1;
    let fields = [inode, mode, 0, 0, links, 0, bytes as u32, 8, 1, 0, 0, path_bytes as u32, 0];
    let digits: String = fields.iter().map(|field| format!("{field:08X}")).collect();
    padded([b"070701", digits.as_bytes(), path.as_bytes(), &[0]].concat())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(path, content)| {
        [header(path, 0o100_755, 1, 7, content.len()), padded(content.clone())].concat()
    });
    entries.chain(header("TRAILER!!!", 0, 1, 0, 0)).collect()
}

/// Every path with its content.
fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CpioError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        archive.content().read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, entry.bytes);
        assert!(entry.is_file() && entry.is_executable());
        entries.push((String::from_utf8(entry.path).unwrap(), content));
    }
    Ok(entries)
}

proptest! {
    #[test]
    fn what_was_written_is_read_again(entries in proptest::collection::vec(
        ("[a-z/]{1,30}", proptest::collection::vec(any::<u8>(), 0..40)), 0..6
    )) {
        prop_assert_eq!(read(&archive(&entries)).unwrap(), entries);
    }

    #[test]
    fn changed_archives_are_read_without_panic(at in 0_usize..400, byte: u8, length in 0_usize..400) {
        let mut bytes = archive(&[("bin/a".into(), vec![1; 50]), ("bin/b".into(), vec![2; 9])]);
        if let Some(changed) = bytes.get_mut(at) {
            *changed = byte;
        }
        bytes.truncate(length);
        let mut archive = Archive::new(bytes.as_slice());
        while let Ok(Some(_)) = archive.next_entry() {}
    }
}

#[test]
fn content_that_nobody_reads_is_skipped() {
    let bytes = archive(&[("a".into(), vec![1; 7]), ("b".into(), vec![2; 6])]);
    let mut archive = Archive::new(bytes.as_slice());
    assert_eq!(archive.next_entry().unwrap().unwrap().path, b"a");
    archive.content().read_exact(&mut [0; 3]).unwrap();
    assert_eq!(archive.next_entry().unwrap().unwrap().path, b"b");
    assert!(archive.next_entry().unwrap().is_none());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let good = archive(&[("bin/a".into(), vec![1; 5])]);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|bytes| bytes[5] = b'7', "byte 0: there is no header of a newc archive");
    check(&|bytes| bytes[6] = b'+', "byte 0: the header is broken");
    check(&|bytes| bytes[6] = b'g', "byte 0: the header is broken");
    check(&|bytes| bytes[112] = 0, "byte 0: the entry has no path");
    check(&|bytes| bytes[115] = 1, "byte 0: the entry has no path");
    check(&|bytes| bytes[94..102].copy_from_slice(b"00000001"), "byte 0: the entry has no path");
    check(&|bytes| bytes[94..102].copy_from_slice(b"FFFFFFFF"), "byte 0: the entry has no path");
    check(&|bytes| bytes[54..62].copy_from_slice(b"FFFFFFFF"), "before the archive does");
    check(&|bytes| bytes.truncate(130), "it ends at byte");
    check(&|bytes| bytes.truncate(118), "it ends at byte 118, before the archive does");
}
