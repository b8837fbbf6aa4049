//! `assay policy from-initrd`: the programs of an initramfs, out of the image.
//!
//! An image is what the kernel unpacks: cpio archives one after the other, with zeros between them, such as microcode
//! first and as it is, then the rest packed. A later file takes the place of an earlier one of its name, and names that
//! share an inode share the content that comes last. Nothing is unpacked to disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::file_list::FileList;
use crate::archive::cpio::{Archive, Entry};
use crate::archive::lz4::Lz4Decoder;
use crate::policy::destination::Destination;

/// Arguments of `assay policy from-initrd`.
#[derive(clap::Args)]
pub struct Args {
    /// Images, such as /boot/initrd.img-6.1.0-55-amd64.
    #[arg(required = true, value_name = "FILE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    to: Destination,
    /// List every file, as the kernel's policy tcb measures what root reads.
    #[arg(long)]
    all_files: bool,
    /// What to call it.
    #[arg(long, default_value = "initrd")]
    name: String,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut files = FileList::new(&args.name, args.all_files);
    for path in &args.images {
        let image = read(path, args.all_files).with_context(|| path.display().to_string())?;
        files.absorb(image)?;
    }
    let policy = files.finish();
    args.to.write(&policy, &[]).context("no program was found")
}

/// Lists the files of an image.
pub fn read(path: &Path, all_files: bool) -> Result<FileList> {
    Image::read(path, all_files)
}

/// What one image leaves in the root file system.
struct Image {
    files: FileList,
    archives: usize,
}

impl Image {
    fn read(path: &Path, all_files: bool) -> Result<FileList> {
        let mut image = Image { files: FileList::new("image", all_files), archives: 0 };
        let progress = indicatif::ProgressBar::new_spinner();
        let mut input = BufReader::new(progress.wrap_read(File::open(path)?));
        while let Some(magic) = next_magic(&mut input)? {
            let mut section = Cursor::new(magic).chain(&mut input);
            if is_archive(magic) {
                image.archive(&mut section)?;
            } else {
                image.packed(unpacked(magic, section)?)?;
            }
        }
        progress.finish_and_clear();
        if image.archives == 0 {
            bail!("there is no archive in it");
        }
        Ok(image.files)
    }

    /// The archives of a packed section.
    fn packed(&mut self, unpacked: Box<dyn Read + '_>) -> Result<()> {
        let mut input = BufReader::new(unpacked.take(UNPACKED_BYTES_MAX));
        while let Some(magic) = next_magic(&mut input)? {
            self.archive(&mut Cursor::new(magic).chain(&mut input))?;
        }
        if input.into_inner().limit() == 0 {
            bail!("more than {UNPACKED_BYTES_MAX} bytes are packed in it");
        }
        Ok(())
    }

    fn archive(&mut self, input: &mut impl Read) -> Result<()> {
        self.archives += 1;
        if self.archives > ARCHIVES_MAX {
            bail!("more than {ARCHIVES_MAX} archives");
        }
        let mut archive = Archive::new(input);
        // Names of one file, of which only the last need have its content.
        let mut linked: HashMap<(u32, u32, u32), Vec<Entry>> = HashMap::new();
        while let Some(entry) = archive.next_entry()? {
            let path = measured_path(&entry.path)?;
            self.files.remove(&path);
            if !entry.is_file() {
                continue;
            }
            let entry = Entry { path, ..entry };
            if entry.links < 2 {
                self.files.add(&entry.path, entry.is_executable(), archive.content())?;
                continue;
            }
            let names = linked.entry(entry.file).or_default();
            if entry.bytes > 0 {
                self.files.add(&entry.path, entry.is_executable(), archive.content())?;
                names.iter().for_each(|name| self.files.rename(&name.path, &entry.path));
            } else if let Some(known) = names.iter().find(|name| name.bytes > 0) {
                self.files.rename(&entry.path, &known.path);
            }
            names.push(entry);
        }
        let empty = linked.into_values().filter(|names| names.iter().all(|name| name.bytes == 0));
        for name in empty.flatten() {
            self.files.add(&name.path, name.is_executable(), std::io::empty())?;
        }
        Ok(())
    }
}

/// The first bytes of the next section, past the zeros before it; `None` at the end.
fn next_magic(input: &mut impl BufRead) -> Result<Option<[u8; MAGIC_BYTES]>> {
    loop {
        let buffer = input.fill_buf()?;
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        if buffer.is_empty() {
            return Ok(None);
        }
        let is_over = zeros < buffer.len();
        input.consume(zeros);
        if is_over {
            break;
        }
    }
    let mut magic = [0; MAGIC_BYTES];
    input.read_exact(&mut magic).context("it ends with something that is no archive")?;
    Ok(Some(magic))
}

/// Whether an archive stands as it is.
fn is_archive(magic: [u8; MAGIC_BYTES]) -> bool {
    magic == *b"0707"
}

/// The content of a packed section.
fn unpacked<'a>(magic: [u8; MAGIC_BYTES], section: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(section)),
        [0xfd, b'7', b'z', b'X'] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(section, stream))
        }
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(section);
            Box::new(decoder.map_err(|error| anyhow!("zstd: {error}"))?)
        }
        [0x02, 0x21, 0x4c, 0x18] => Box::new(Lz4Decoder::new(section)),
        [first, second, third, fourth] => bail!(
            "a section begins with {first:02x}{second:02x}{third:02x}{fourth:02x}, which is neither a cpio archive nor packed \
             by gzip, xz, zstd or lz4 -l"
        ),
    })
}

/// `./usr/bin/true` as the kernel reports it, `/usr/bin/true`.
fn measured_path(name: &[u8]) -> Result<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len() + 1);
    for part in name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            bail!("{:?} leaves the root", String::from_utf8_lossy(name));
        }
        path.push(b'/');
        path.extend_from_slice(part);
    }
    Ok(path)
}

const MAGIC_BYTES: usize = 4;
/// Ten times the largest images seen, which carry firmware for every graphics card.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Two or three are common.
const ARCHIVES_MAX: usize = 1024;
/// `xz -9` needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;
