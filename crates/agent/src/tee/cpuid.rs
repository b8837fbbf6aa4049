//! What the processor says of itself.

/// The four registers that CPUID answers in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Whom CPUID is asked.
pub trait Cpuid {
    /// A leaf; `None`: the processor has no such leaf, or no CPUID.
    fn leaf(&self, leaf: u32, subleaf: u32) -> Option<Leaf>;
}

/// This machine's processor.
pub fn hardware() -> impl Cpuid {
    Hardware
}

struct Hardware;

impl Cpuid for Hardware {
    #[cfg(target_arch = "x86_64")]
    fn leaf(&self, leaf: u32, subleaf: u32) -> Option<Leaf> {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // The first leaf of each range says how many there are (Intel SDM and AMD APM, CPUID); one past them answers with another's.
        let range = leaf & 0xf000_0000;
        if __cpuid(range).eax < leaf {
            return None;
        }
        let found = __cpuid_count(leaf, subleaf);
        Some(Leaf { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn leaf(&self, _: u32, _: u32) -> Option<Leaf> {
        None
    }
}

#[cfg(test)]
impl Cpuid for &[(u32, u32, Leaf)] {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Option<Leaf> {
        let found = self.iter().find(|(of, sub, _)| (*of, *sub) == (leaf, subleaf));
        found.map(|(_, _, found)| *found)
    }
}
