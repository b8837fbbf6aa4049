//! AMD's products, and the root key of each.

use std::fmt;

/// A line of processors that share a root key and a layout of TCB versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004: Genoa, Bergamo and Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Every product.
    pub const ALL: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];

    /// AMD's name for it, as certificates write it.
    pub fn name(self) -> &'static str {
        match self {
            Product::Milan => "Milan",
            Product::Genoa => "Genoa",
            Product::Turin => "Turin",
        }
    }

    /// By a certificate's productName, which may add a stepping: `Milan-B0`.
    pub(super) fn from_name(name: &str) -> Option<Product> {
        let line = name.split('-').next()?;
        Product::ALL.into_iter().find(|product| product.name() == line)
    }

    /// By the combined CPUID family and model that firmware puts into reports of version 3 and later.
    pub(super) fn from_cpuid(family: u8, model: u8) -> Option<Product> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Product::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
            (0x1a, 0x00..=0x11) => Some(Product::Turin),
            _ => None,
        }
    }

    /// SHA-256 over the SubjectPublicKeyInfo of the ARK. Pinned: whoever brings the certificate, the key is AMD's.
    pub fn root_spki_sha256(self) -> &'static str {
        match self {
            Product::Milan => "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
            Product::Genoa => "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
            Product::Turin => "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
