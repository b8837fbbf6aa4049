//! IMA templates: which fields an entry's template data is made of.
//!
//! The kernel's documentation (security/IMA-templates) names the fields; a list may also state a
//! format of its own, such as `d-ng|n-ng|sig`, in place of a template name.

use super::{ImaErrorKind, TEMPLATE_FIELDS_MAX};

/// One field of template data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `d`: a bare MD5 or SHA-1 digest of at most 20 bytes.
    Digest,
    /// `d-ng`: `algorithm:`, NUL, digest.
    DigestNg,
    /// `d-ngv2`: `type:algorithm:`, NUL, digest; the type is `ima` or `verity`.
    DigestNgV2,
    /// `d-modsig`: as `d-ng`, the digest an appended signature is over.
    DigestModsig,
    /// `n`: a name of at most 255 bytes.
    Name,
    /// `n-ng`: a name and NUL.
    NameNg,
    /// `sig`: the file signature.
    Signature,
    /// `modsig`: the appended signature.
    Modsig,
    /// `buf`: a measured buffer.
    Buffer,
    /// `evmsig`: the portable EVM signature.
    EvmSignature,
    /// `xattrnames`: names of protected attributes, `|` between them.
    XattrNames,
    /// `xattrlengths` and `xattrvalues`.
    Xattrs,
    /// `iuid` and `igid`: four bytes.
    Owner,
    /// `imode`: two bytes.
    Mode,
}

const FIELD_IDS: [(&str, Field); 16] = [
    ("d", Field::Digest),
    ("d-ng", Field::DigestNg),
    ("d-ngv2", Field::DigestNgV2),
    ("d-modsig", Field::DigestModsig),
    ("n", Field::Name),
    ("n-ng", Field::NameNg),
    ("sig", Field::Signature),
    ("modsig", Field::Modsig),
    ("buf", Field::Buffer),
    ("evmsig", Field::EvmSignature),
    ("xattrnames", Field::XattrNames),
    ("xattrlengths", Field::Xattrs),
    ("xattrvalues", Field::Xattrs),
    ("iuid", Field::Owner),
    ("igid", Field::Owner),
    ("imode", Field::Mode),
];

macro_rules! templates {
    ($($(#[$doc:meta])* $variant:ident => $name:literal $fields:expr,)*) => {
        /// A template the kernel knows by name, or a format stated in the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Template<'a> {
            $($(#[$doc])* $variant,)*
            /// A format of field identifiers with `|` between them.
            Format(&'a str),
        }

        impl<'a> Template<'a> {
            /// The template of this name.
            pub(super) fn from_name(name: &'a [u8]) -> Result<Self, ImaErrorKind> {
                $(if name == $name.as_bytes() { return Ok(Template::$variant); })*
                let format = std::str::from_utf8(name).map_err(|_| ImaErrorKind::TemplateUnknown)?;
                format_fields(format).map(|_| Template::Format(format))
            }

            /// Its name or format, as the list has it.
            pub fn name(&self) -> &'a str {
                match self { $(Template::$variant => $name,)* Template::Format(format) => format }
            }

            /// The template, unless the list states a format of its own.
            pub(super) fn known(&self) -> Option<Template<'static>> {
                match self { $(Template::$variant => Some(Template::$variant),)* Template::Format(_) => None }
            }

            /// Its fields, in order.
            pub(super) fn fields(&self) -> Fields {
                match self {
                    $(Template::$variant => Fields::known($fields),)*
                    Template::Format(format) => format_fields(format).unwrap_or_default(),
                }
            }
        }
    };
}

templates! {
    /// The original: a SHA-1 or MD5 digest and a short name.
    Ima => "ima" &[Field::Digest, Field::Name],
    /// Digest with algorithm, and name.
    ImaNg => "ima-ng" &[Field::DigestNg, Field::NameNg],
    /// Digest with type and algorithm, and name.
    ImaNgV2 => "ima-ngv2" &[Field::DigestNgV2, Field::NameNg],
    /// As `ima-ng`, with the file signature.
    ImaSig => "ima-sig" &[Field::DigestNg, Field::NameNg, Field::Signature],
    /// As `ima-ngv2`, with the file signature.
    ImaSigV2 => "ima-sigv2" &[Field::DigestNgV2, Field::NameNg, Field::Signature],
    /// A measured buffer with its digest and name.
    ImaBuf => "ima-buf" &[Field::DigestNg, Field::NameNg, Field::Buffer],
    /// As `ima-sig`, with the appended signature and what it is over.
    ImaModsig => "ima-modsig"
        &[Field::DigestNg, Field::NameNg, Field::Signature, Field::DigestModsig, Field::Modsig],
    /// Everything a portable EVM signature is over.
    EvmSig => "evm-sig"
        &[
            Field::DigestNg, Field::NameNg, Field::EvmSignature, Field::XattrNames, Field::Xattrs,
            Field::Xattrs, Field::Owner, Field::Owner, Field::Mode,
        ],
}

/// The fields of one template; a small list without allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    fields: [Option<Field>; TEMPLATE_FIELDS_MAX],
}

impl Fields {
    fn known(list: &[Field]) -> Self {
        let mut fields = Fields::default();
        for (to, from) in fields.fields.iter_mut().zip(list) {
            *to = Some(*from);
        }
        fields
    }

    /// The fields in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Field> + '_ {
        self.fields.iter().filter_map(|field| *field)
    }
}

/// A stated format must have one digest and one name, or nothing could be said of the entry.
fn format_fields(format: &str) -> Result<Fields, ImaErrorKind> {
    let mut fields = Fields::default();
    let mut slots = fields.fields.iter_mut();
    for id in format.split('|') {
        let known = FIELD_IDS.iter().find(|(name, _)| *name == id).map(|(_, field)| *field);
        let slot = slots.next().ok_or(ImaErrorKind::TemplateUnknown)?;
        *slot = Some(known.ok_or(ImaErrorKind::TemplateUnknown)?);
    }
    let names = fields.iter().filter(|field| matches!(field, Field::Name | Field::NameNg)).count();
    let digests =
        fields.iter().filter(|f| matches!(f, Field::Digest | Field::DigestNg | Field::DigestNgV2)).count();
    (names == 1 && digests == 1).then_some(fields).ok_or(ImaErrorKind::TemplateUnknown)
}
