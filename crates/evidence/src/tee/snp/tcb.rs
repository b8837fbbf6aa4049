//! TCB versions: which versions of its firmware a platform says it runs.

use std::fmt;

use super::product::Product;

/// One security version for each part of the platform's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcb {
    /// The FMC's; Turin and later have one.
    pub fmc: Option<u8>,
    /// The boot loader's.
    pub bootloader: u8,
    /// That of the operating system of the security processor.
    pub tee: u8,
    /// That of the SNP firmware.
    pub snp: u8,
    /// The microcode's.
    pub microcode: u8,
}

impl Tcb {
    /// Reads a TCB_VERSION; its layout is the product's (SEV-SNP ABI, 2.2).
    pub(super) fn parse(bytes: [u8; 8], product: Product) -> Tcb {
        match (product, bytes) {
            (Product::Milan | Product::Genoa, [bootloader, tee, _, _, _, _, snp, microcode]) => {
                Tcb { fmc: None, bootloader, tee, snp, microcode }
            }
            (Product::Turin, [fmc, bootloader, tee, snp, _, _, _, microcode]) => {
                Tcb { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
        }
    }

    /// The parts by name, in the order in which they are written.
    pub fn parts(self) -> impl Iterator<Item = (&'static str, u8)> {
        let Tcb { fmc, bootloader, tee, snp, microcode } = self;
        fmc.map(|fmc| ("fmc", fmc)).into_iter().chain([
            ("bootloader", bootloader),
            ("tee", tee),
            ("snp", snp),
            ("microcode", microcode),
        ])
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, version)) in self.parts().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {version}")?;
        }
        Ok(())
    }
}
