//! TCB status: how Intel's statements on a platform, its quoting enclave and its TDX module become one.
//!
//! Intel's Provisioning Certification Service, version 4: `tcbLevels` go from the newest down, and the first level of which
//! no version is above the platform's is the platform's.

use std::fmt;

/// How a TCB stands, in Intel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
pub enum TcbStatus {
    /// Nothing is known against it.
    UpToDate,
    /// Software in the enclave or guest has to mitigate something.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform may be set up in a way that is open to something.
    ConfigurationNeeded,
    /// Both.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// An update is missing.
    OutOfDate,
    /// An update is missing, and the set-up may be open to something.
    OutOfDateConfigurationNeeded,
    /// Its keys are not trusted any more.
    Revoked,
}

impl TcbStatus {
    /// Every status, from the best to the worst.
    pub const ALL: [TcbStatus; 7] = [
        TcbStatus::UpToDate,
        TcbStatus::SwHardeningNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSwHardeningNeeded,
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
        TcbStatus::Revoked,
    ];

    /// Intel's spelling.
    pub fn name(self) -> &'static str {
        match self {
            TcbStatus::UpToDate => "UpToDate",
            TcbStatus::SwHardeningNeeded => "SWHardeningNeeded",
            TcbStatus::ConfigurationNeeded => "ConfigurationNeeded",
            TcbStatus::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            TcbStatus::OutOfDate => "OutOfDate",
            TcbStatus::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            TcbStatus::Revoked => "Revoked",
        }
    }

    /// The platform's status with that of a part beside it, the quoting enclave or the TDX module.
    #[must_use]
    pub(super) fn with_part(self, part: TcbStatus) -> TcbStatus {
        use TcbStatus::{
            ConfigurationAndSwHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded,
            Revoked, SwHardeningNeeded, UpToDate,
        };
        match (self, part) {
            (Revoked, _) | (_, Revoked) => Revoked,
            (platform, UpToDate) => platform,
            (UpToDate | SwHardeningNeeded | OutOfDate, OutOfDate) => OutOfDate,
            (
                ConfigurationNeeded | ConfigurationAndSwHardeningNeeded | OutOfDateConfigurationNeeded,
                OutOfDate,
            )
            | (_, OutOfDateConfigurationNeeded) => OutOfDateConfigurationNeeded,
            // Intel gives parts no other status; if it ever does, the worse of both counts.
            (platform, part) => {
                let rank = |status| TcbStatus::ALL.iter().position(|known| *known == status);
                if rank(platform) >= rank(part) { platform } else { part }
            }
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What Intel says of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: TcbStatus,
    pub(super) advisories: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::TcbStatus::{self, *};

    #[test]
    fn a_part_makes_the_whole_no_better() {
        let check = |platform: TcbStatus, part: TcbStatus, whole| assert_eq!(platform.with_part(part), whole);
        check(UpToDate, UpToDate, UpToDate);
        check(SwHardeningNeeded, UpToDate, SwHardeningNeeded);
        check(UpToDate, OutOfDate, OutOfDate);
        check(SwHardeningNeeded, OutOfDate, OutOfDate);
        check(ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded);
        check(ConfigurationAndSwHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded);
        check(OutOfDateConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded);
        check(UpToDate, Revoked, Revoked);
        check(Revoked, OutOfDate, Revoked);
        for platform in TcbStatus::ALL {
            for part in TcbStatus::ALL {
                let rank = |status| TcbStatus::ALL.iter().position(|known| *known == status);
                assert!(
                    rank(platform.with_part(part)) >= rank(platform).max(rank(part)),
                    "{platform} {part}"
                );
            }
        }
    }
}
