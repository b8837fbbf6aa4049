//! `assay policy from-initrd`: images written here, however they are packed, and one by the real tool.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use tempfile::tempdir;

use crate::assay;

pub const PROGRAM: u32 = 0o100_755;
const PAGE: u32 = 0o100_644;
const FOLDER: u32 = 0o040_755;

/// An archive of the new ASCII form in the making.
#[derive(Default)]
pub struct Cpio(Vec<u8>);

impl Cpio {
    fn entry(mut self, path: &str, mode: u32, file: u32, links: u32, content: &[u8]) -> Self {
        let numbers =
            [file, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        let header: String = numbers.iter().map(|number| format!("{number:08x}")).collect();
        self.0.extend([b"070701", header.as_bytes(), path.as_bytes(), &[0]].concat());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        let number = self.0.len() as u32;
        self.entry(path, mode, number, 1, content)
    }

    pub fn finish(self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, 1, &[]).0
    }
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(digest(&SHA256, content).as_ref()))
}

/// What is listed of an image.
fn listed(image: &Path, arguments: &[&str]) -> Value {
    let made = image.with_extension("json");
    let fixed = ["policy", "from-initrd", image.to_str().unwrap(), "-o", made.to_str().unwrap()];
    let output = assay(fixed.iter().chain(arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(made).unwrap()).unwrap();
    json["ima"]["allow"].clone()
}

fn image(folder: &Path, sections: &[&[u8]]) -> PathBuf {
    let path = folder.join("initrd.img");
    std::fs::write(&path, sections.concat()).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(bytes);
    [0x184c_2102_u32.to_le_bytes().as_slice(), &(block.len() as u32).to_le_bytes(), &block].concat()
}

#[test]
fn an_image_is_read_however_it_is_packed() {
    let microcode = Cpio::default()
        .file("kernel/x86/microcode/GenuineIntel.bin", PAGE, b"microcode")
        .file("early", PROGRAM, b"early")
        .finish();
    let gap = vec![0; microcode.len().next_multiple_of(512) - microcode.len()];
    let system = Cpio::default()
        .file(".", FOLDER, &[])
        .file("init", PROGRAM, b"#!/bin/sh")
        .file("./usr/bin/tool", PROGRAM, b"tool")
        .file("usr/lib/modules/a.ko", PAGE, b"module")
        .file("etc/page", PAGE, b"page")
        .finish();
    let folder = tempdir().unwrap();
    for (name, pack) in [
        ("none", <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
        ("gzip", gzip),
        ("xz", xz),
        ("zstd", zstd),
        ("lz4", lz4),
    ] {
        let path = image(folder.path(), &[&microcode, &gap, &pack(&system), &[0; 7]]);
        let allow = listed(&path, &[]);
        let paths: Vec<&String> = allow.as_object().unwrap().keys().collect();
        assert_eq!(paths, ["/early", "/init", "/usr/bin/tool", "/usr/lib/modules/a.ko"], "{name}");
        assert_eq!(allow["/usr/bin/tool"], serde_json::json!([sha256(b"tool")]), "{name}");
        let all = listed(&path, &["--all-files"]);
        assert_eq!(all["/kernel/x86/microcode/GenuineIntel.bin"][0], sha256(b"microcode").as_str());
        assert_eq!(all.as_object().unwrap().len(), 6, "{name}");
    }
    // Two archives in one packed section, and another packed section behind it.
    let more = Cpio::default().file("more", PROGRAM, b"more").finish();
    let path = image(folder.path(), &[&gzip(&[microcode, vec![0; 4], system].concat()), &[0; 3], &xz(&more)]);
    assert_eq!(listed(&path, &[]).as_object().unwrap().len(), 5);
}

#[test]
fn links_and_later_files_are_what_the_kernel_makes_of_them() {
    let first = Cpio::default()
        .entry("bin/a", PROGRAM, 9, 3, &[])
        .entry("bin/b", PROGRAM, 9, 3, &[])
        .entry("bin/c", PROGRAM, 9, 3, b"linked")
        .entry("bin/d", PROGRAM, 8, 2, b"given first")
        .entry("bin/e", PROGRAM, 8, 2, &[])
        .entry("bin/f", PROGRAM, 7, 2, &[])
        .entry("bin/g", PROGRAM, 7, 2, &[])
        .file("bin/old", PROGRAM, b"old")
        .file("bin/gone", PROGRAM, b"gone")
        .finish();
    // Inodes count within one archive only.
    let second = Cpio::default()
        .file("bin/old", PROGRAM, b"new")
        .file("bin/gone", FOLDER, &[])
        .entry("bin/h", PROGRAM, 9, 2, &[])
        .finish();
    let folder = tempdir().unwrap();
    let allow = listed(&image(folder.path(), &[&first, &second]), &[]);
    let expected = [
        ("a", "linked"),
        ("b", "linked"),
        ("c", "linked"),
        ("d", "given first"),
        ("e", "given first"),
        ("f", ""),
        ("g", ""),
        ("h", ""),
        ("old", "new"),
    ];
    let expected: serde_json::Map<String, Value> = expected
        .iter()
        .map(|(name, content)| (format!("/bin/{name}"), serde_json::json!([sha256(content.as_bytes())])))
        .collect();
    assert_eq!(allow, Value::Object(expected));
}

#[test]
fn two_images_are_both_allowed() {
    let folder = tempdir().unwrap();
    let images = ["old", "new"].map(|content| {
        let path = folder.path().join(content);
        std::fs::write(&path, Cpio::default().file("init", PROGRAM, content.as_bytes()).finish()).unwrap();
        path
    });
    let made = folder.path().join("made.json");
    let output = assay([
        "policy".as_ref(),
        "from-initrd".as_ref(),
        images[0].as_os_str(),
        images[1].as_os_str(),
        "-o".as_ref(),
        made.as_os_str(),
    ]);
    assert!(output.status.success());
    let json: Value = serde_json::from_slice(&std::fs::read(made).unwrap()).unwrap();
    assert_eq!(json["ima"]["allow"]["/init"], serde_json::json!([sha256(b"old"), sha256(b"new")]));
}

#[test]
fn what_is_no_image_is_refused_with_its_reason() {
    let good = Cpio::default().file("init", PROGRAM, b"#!/bin/sh").finish();
    let packed = gzip(&good);
    let folder = tempdir().unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let path = image(folder.path(), &[bytes]);
        let made = folder.path().join("made.toml");
        let output = assay([
            "policy".as_ref(),
            "from-initrd".as_ref(),
            path.as_os_str(),
            "-o".as_ref(),
            made.as_os_str(),
        ]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), why.contains(expected)), (Some(1), true), "{why}");
        assert!(why.contains("initrd.img") && !made.exists(), "{why}");
    };
    check(&[], "there is no archive in it");
    check(&[0; 512], "there is no archive in it");
    check(b"\x5d\0\0\x80lzma", "begins with 5d000080");
    check(b"07", "ends with something that is no archive");
    check(good.get(..100).unwrap(), "it ends at byte");
    check(packed.get(..packed.len() - 12).unwrap(), "it ends at byte");
    check(&[good.as_slice(), b"junk junk"].concat(), "begins with 6a756e6b");
    check(&gzip(&[b'j'; 200]), "there is no header of a newc archive");
    check(&Cpio::default().file("../init", PROGRAM, b"a").finish(), "leaves the root");
}

#[test]
fn an_image_by_cpio_lists_what_the_tree_has() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    for (path, content) in [("init", "#!/bin/sh\n"), ("usr/bin/a b", "tool"), ("usr/bin/empty", "")] {
        std::fs::write(root.join(path), content).unwrap();
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::hard_link(root.join("usr/bin/a b"), root.join("usr/bin/linked")).unwrap();
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    let mut cpio = Command::new("cpio")
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("apt-get install cpio");
    let names = "./init\n./bin\n./usr\n./usr/bin\n./usr/bin/a b\n./usr/bin/empty\n./usr/bin/linked\n";
    cpio.stdin.take().unwrap().write_all(names.as_bytes()).unwrap();
    let archive = cpio.wait_with_output().unwrap().stdout;
    let from_image = listed(&image(folder.path(), &[&zstd(&archive)]), &[]);
    let made = folder.path().join("tree.json");
    let tree =
        assay(["policy".as_ref(), "from-rootfs".as_ref(), root.as_os_str(), "-o".as_ref(), made.as_os_str()]);
    assert!(tree.status.success());
    let from_tree: Value = serde_json::from_slice(&std::fs::read(made).unwrap()).unwrap();
    assert_eq!(from_image, from_tree["ima"]["allow"]);
    assert_eq!(from_image.as_object().unwrap().len(), 4);
}
