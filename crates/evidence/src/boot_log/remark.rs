//! What a log calls its events: names, paths and texts that no digest need cover.
//!
//! For people, to find their way; nothing may be granted on the word of a remark.

use super::variable::utf16;
use super::{Event, EventType, Variable, device_path};
use crate::read::Reader;
use crate::text::escaped;

/// What the log calls an event: text, a variable's name, an image's path, or just its type.
pub(super) fn remark(event: &Event<'_>) -> String {
    let data = event.data();
    let named = match event.event_type() {
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY => Variable::parse(data).ok().map(|variable| variable.name),
        EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => image_path(data),
        // Tag and length, then text where the kernel wrote it.
        EventType::EVENT_TAG => data.get(8..).and_then(printable),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB => firmware_blob(data),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => {
            data.split_first().and_then(|(count, rest)| rest.get(..usize::from(*count))).and_then(printable)
        }
        _ => printable(data),
    };
    named.map_or_else(|| event.event_type().to_string(), |named| one_line(&named))
}

fn firmware_blob(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let (base, length) = (reader.u64_le().ok()?, reader.u64_le().ok()?);
    reader.is_empty().then(|| format!("{length:#x} bytes at {base:#x}"))
}

/// Of bounded length, and nothing in it that a terminal would act on.
fn one_line(text: &str) -> String {
    escaped(&text.chars().take(REMARK_CHARACTERS_MAX).collect::<String>()).into_owned()
}

/// ASCII or UTF-16 text.
fn printable(data: &[u8]) -> Option<String> {
    let is_text = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t')
            && !text.contains(char::REPLACEMENT_CHARACTER)
    };
    let data = data.get(..data.len().min(2 * REMARK_CHARACTERS_MAX))?;
    let narrow = String::from_utf8_lossy(data);
    let narrow = narrow.trim_end_matches('\0');
    if is_text(narrow) {
        return Some(narrow.to_owned());
    }
    let wide = utf16(data);
    let wide = wide.trim_end_matches('\0');
    is_text(wide).then(|| wide.to_owned())
}

/// UEFI_IMAGE_LOAD_EVENT: three addresses, the path's length, the path.
pub(super) fn image_path(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    reader.bytes(IMAGE_LOAD_FIXED_BYTES).ok()?;
    let length = usize::try_from(reader.u64_le().ok()?).ok()?;
    device_path::text(reader.bytes(length).ok()?).filter(|path| !path.is_empty()).map(|path| one_line(&path))
}

/// ImageLocationInMemory, ImageLengthInMemory, ImageLinkTimeAddress.
const IMAGE_LOAD_FIXED_BYTES: usize = 3 * 8;
/// Characters of a remark.
const REMARK_CHARACTERS_MAX: usize = 400;
