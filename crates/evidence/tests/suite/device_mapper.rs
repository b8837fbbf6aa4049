//! Device mapper events, in the form that the kernel's dm-ima writes.

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{DmChange, DmDevice, DmError, DmEvent, DmNumbers, parse_binary};
use proptest::prelude::*;

use crate::signatures::entry;

fn read(event: &str, data: &[u8]) -> Option<Result<DmEvent, DmError>> {
    let digest = HashAlgorithm::Sha256.hash(&[data]);
    let name = [event.as_bytes(), b"\0"].concat();
    let bytes = entry("ima-buf", &[&[b"sha256:\0", digest.as_bytes()].concat(), &name, data]);
    parse_binary(&bytes).unwrap().entry(0).unwrap().device_mapper()
}

fn change(event: &str, data: &str) -> DmChange {
    let DmEvent { version, change } = read(event, data.as_bytes()).unwrap().unwrap();
    assert_eq!(version.as_deref(), data.starts_with("dm_version").then_some("4.48.0"));
    change
}

fn device(name: &str, targets: u32) -> DmDevice {
    let numbers = DmNumbers { major: 254, minor: 3, minor_count: 1, targets };
    DmDevice { name: name.into(), uuid: "CRYPT-x".into(), numbers: Some(numbers) }
}

const VERITY: &str = "dm_version=4.48.0;name=root,uuid=CRYPT-x,major=254,minor=3,minor_count=1,num_targets=2;\
    target_index=0,target_begin=0,target_len=800,target_name=verity,target_version=1.9.0,hash_failed=V,\
    verity_version=1,verity_algorithm=sha256,root_digest=00ff,salt=-,ignore_zero_blocks=n;\
    target_index=1,target_begin=800,target_len=8,target_name=crypt,target_version=1.24.0,\
    cipher_string=capi:authenc(hmac(sha256),xts(aes))-random,key_size=96;";

#[test]
fn a_loaded_table_is_read() {
    let DmChange::TableLoad { device: found, targets } = change("dm_table_load", VERITY) else { panic!() };
    assert_eq!(found, device("root", 2));
    let [verity, crypt] = targets.as_slice() else { panic!("{targets:?}") };
    assert_eq!((verity.kind.as_str(), verity.version.as_str(), verity.length), ("verity", "1.9.0", 800));
    assert_eq!((verity.attribute("root_digest"), verity.attributes.len()), (Some("00ff"), 6));
    assert_eq!((crypt.index, crypt.begin), (1, 800));
    assert_eq!(crypt.attribute("cipher_string"), Some("capi:authenc(hmac(sha256),xts(aes))-random"));
}

#[test]
fn every_other_change_is_read() {
    let hash = HashAlgorithm::Sha256.hash(&[VERITY.as_bytes()]);
    let metadata = "name=root,uuid=CRYPT-x,major=254,minor=3,minor_count=1,num_targets=2;";
    let check = |event: &str, data: String, expected: DmChange| assert_eq!(change(event, &data), expected);
    // With the hash's algorithm and version, and as kernels first wrote it.
    for (version, text) in [("dm_version=4.48.0;", hash.to_string()), ("", hash.to_hex())] {
        check(
            "dm_device_resume",
            format!("{version}{metadata}active_table_hash={text};current_device_capacity=808;"),
            DmChange::DeviceResume { device: device("root", 2), active_table: Some(hash), capacity: 808 },
        );
    }
    let unmeasured = DmDevice { numbers: None, ..device("root", 0) };
    check(
        "dm_device_resume",
        "dm_version=4.48.0;name=root,uuid=CRYPT-x;device_resume=no_data;current_device_capacity=0;".into(),
        DmChange::DeviceResume { device: unmeasured.clone(), active_table: None, capacity: 0 },
    );
    check(
        "dm_device_remove",
        format!(
            "device_active_metadata={metadata}device_inactive_metadata={metadata}active_table_hash={hash},\
             inactive_table_hash={hash},remove_all=n;current_device_capacity=8;"
        ),
        DmChange::DeviceRemove {
            device: Some(device("root", 2)),
            inactive: Some(device("root", 2)),
            active_table: Some(hash),
            inactive_table: Some(hash),
            remove_all: false,
            capacity: 8,
        },
    );
    check(
        "dm_device_remove",
        "name=root,uuid=CRYPT-x;device_remove=no_data;remove_all=y;current_device_capacity=0;".into(),
        DmChange::DeviceRemove {
            device: Some(unmeasured),
            inactive: None,
            active_table: None,
            inactive_table: None,
            remove_all: true,
            capacity: 0,
        },
    );
    check(
        "dm_table_clear",
        format!("{metadata}inactive_table_hash={hash};current_device_capacity=0;"),
        DmChange::TableClear { device: device("root", 2), inactive_table: Some(hash), capacity: 0 },
    );
    let rename = |device| DmChange::DeviceRename {
        device,
        new_name: r"a,b;c=d\e".into(),
        new_uuid: String::new(),
        capacity: 8,
    };
    let renamed = r"new_name=a\,b\;c\=d\\e,new_uuid=;current_device_capacity=8;";
    check("dm_device_rename", format!("{metadata}{renamed}"), rename(Some(device("root", 2))));
    check("dm_device_rename", format!("device_rename=no_data;{renamed}"), rename(None));
}

/// Whoever names a device cannot write another record or pair into the event.
#[test]
fn a_name_stays_a_name() {
    let data = VERITY.replace("name=root", r"name=x\,uuid\=y\;target_index\=9");
    let DmChange::TableLoad { device, targets } = change("dm_table_load", &data) else { panic!() };
    assert_eq!((device.name.as_str(), targets.len()), ("x,uuid=y;target_index=9", 2));
    assert_eq!(device.uuid, "CRYPT-x");
}

#[test]
fn what_the_kernel_does_not_write_is_refused() {
    let check = |event: &str, from: &str, to: &str, expected: DmError| {
        let data = VERITY.replacen(from, to, 1);
        assert_eq!(read(event, data.as_bytes()), Some(Err(expected)), "{data}");
    };
    let load = "dm_table_load";
    check(load, "key_size=96;", "key_size=96", DmError::Unended);
    check(load, "major=254", "major=-1", DmError::Record(1));
    check(load, "major=254", "major=99999999999", DmError::Record(1));
    check(load, "name=root,", "", DmError::Field("device"));
    check(load, "target_begin=0", "target_begin=+0", DmError::Record(2));
    check(load, "salt=-", "verity_version=2", DmError::Record(2));
    check(load, "target_index=1", "no pair", DmError::Record(3));
    check(load, "target_index=1", "name=other,uuid=;target_index=1", DmError::Excess);
    check(load, "target_index=1", "more=1;target_index=1", DmError::Excess);
    check(
        load,
        "name=root,uuid=CRYPT-x,major=254,minor=3,minor_count=1,num_targets=2;",
        "",
        DmError::Field("device"),
    );
    check("dm_device_resume", "", "", DmError::Field("current_device_capacity"));
    check("dm_device_remove", "", "", DmError::Field("remove_all"));
    check("dm_device_rename", "", "", DmError::Field("new_name"));
    check(load, "dm_version", &"a=1;".repeat(257), DmError::TooLong);
    check(load, "salt=-", &"a=1,".repeat(257), DmError::TooLong);
    check(load, "salt=-", &"a".repeat(16 << 10), DmError::TooLong);
    assert_eq!(read(load, b"name=\xff;"), Some(Err(DmError::NotText)));
    assert_eq!(read(load, b""), None);
    assert_eq!(read("kernel_version", b"6.12"), None);
}

proptest! {
    #[test]
    fn no_data_makes_a_panic(
        event in proptest::sample::select(vec!["dm_table_load", "dm_device_resume", "dm_device_remove",
            "dm_table_clear", "dm_device_rename"]),
        data in "(name|uuid|target_index|remove_all|[a-z]|=|,|;|\\\\|[0-9]|ü)*",
        cut in any::<prop::sample::Index>(),
    ) {
        let _ = read(event, data.as_bytes());
        let at = cut.index(VERITY.len());
        let changed = [&VERITY[..at], data.as_str(), &VERITY[at..]].concat();
        let _ = read(event, changed.as_bytes());
    }

    #[test]
    fn every_name_comes_back(name in "[a-z,;=\\\\ ü\n]{0,40}") {
        let escaped: String = name
            .chars()
            .flat_map(|c| matches!(c, ',' | ';' | '=' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        let data = format!("device_rename=no_data;new_name={escaped},new_uuid=;current_device_capacity=1;");
        let DmChange::DeviceRename { new_name, .. } = change("dm_device_rename", &data) else { panic!() };
        prop_assert_eq!(new_name, name);
    }
}
