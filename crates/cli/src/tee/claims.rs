//! The claims of a TEE as JSON: bytes in hex, names as the makers' specifications have them.

use assay_evidence::tee::azure::{AzureClaims, AzurePlatform};
use assay_evidence::tee::cca::CcaClaims;
use assay_evidence::tee::dcap::{DcapClaims, Guest, Subject};
use assay_evidence::tee::nvidia::NvidiaClaims;
use assay_evidence::tee::snp::{SigningKey, SnpClaims, Tcb};
use assay_trust::TeeClaims;
use serde_json::{Map, Value, json};

/// Every claim.
pub fn to_json(claims: &TeeClaims) -> Value {
    match claims {
        TeeClaims::Snp(claims) => snp(claims),
        TeeClaims::Dcap(claims) => dcap(claims),
        TeeClaims::Azure(claims) => azure(claims),
        TeeClaims::Cca(claims) => cca(claims),
        TeeClaims::Nvidia(claims) => nvidia(claims),
    }
}

fn cca(claims: &CcaClaims) -> Value {
    let software = claims.software.iter().map(|part| {
        json!({
            "component_type": part.kind,
            "measurement": hex(&part.measurement),
            "signer_id": hex(&part.signer),
            "version": part.version,
        })
    });
    json!({
        "platform": {
            "profile": claims.profile,
            "implementation_id": hex(&claims.implementation_id),
            "instance_id": hex(&claims.instance_id),
            "lifecycle": format!("{:#06x}", claims.lifecycle),
            "configuration": hex(&claims.configuration),
            "software_components": software.collect::<Vec<_>>(),
        },
        "realm": {
            "challenge": hex(&claims.challenge),
            "personalization": hex(&claims.personalization),
            "initial_measurement": hex(&claims.initial_measurement),
            "extensible_measurements": claims.extensible_measurements.iter().map(|value| hex(value)).collect::<Vec<_>>(),
        },
    })
}

fn nvidia(claims: &NvidiaClaims) -> Value {
    let measurements =
        claims.measurements.iter().map(|(index, value)| (index.to_string(), json!(hex(value))));
    json!({
        "device": claims.device,
        "nonce": hex(&claims.nonce),
        "driver": claims.driver,
        "vbios": claims.vbios,
        "measurements": measurements.collect::<Map<_, _>>(),
        "root": claims.anchor,
        "valid_until": claims.valid_until.to_string(),
    })
}

fn azure(claims: &AzureClaims) -> Value {
    let pcrs = claims.pcrs.iter().map(|(_, index, value)| (index.to_string(), json!(value.to_hex())));
    json!({
        "hardware": match &claims.platform {
            AzurePlatform::Snp(claims) => snp(claims),
            AzurePlatform::Tdx(claims) => dcap(claims),
        },
        "nonce": hex(&claims.nonce),
        "pcrs": { "sha256": pcrs.collect::<Map<_, _>>() },
        "reset_count": claims.clock.reset_count,
        "restart_count": claims.clock.restart_count,
        "ak_spki": hex(&claims.ak_spki),
        "configuration": claims.configuration,
    })
}

fn snp(claims: &SnpClaims) -> Value {
    json!({
        "version": claims.version,
        "product": claims.product.name(),
        "signing_key": match claims.signing_key { SigningKey::Vcek => "VCEK", SigningKey::Vlek => "VLEK" },
        "chip_id": claims.chip_id.as_deref().map(hex),
        "csp_id": claims.csp_id,
        "guest_svn": claims.guest_svn,
        "policy": {
            "bits": format!("{:#x}", claims.policy.bits()),
            "debug": claims.policy.allows_debug(),
            "migration": claims.policy.allows_migration(),
            "smt": claims.policy.allows_smt(),
            "single_socket": claims.policy.wants_one_socket(),
        },
        "platform": {
            "bits": format!("{:#x}", claims.platform.bits()),
            "smt": claims.platform.has_smt(),
            "tsme": claims.platform.has_tsme(),
        },
        "vmpl": claims.vmpl,
        "measurement": hex(&claims.measurement),
        "report_data": hex(&claims.report_data),
        "host_data": hex(&claims.host_data),
        "family_id": hex(&claims.family_id),
        "image_id": hex(&claims.image_id),
        "id_key_digest": hex(&claims.id_key_digest),
        "author_key_digest": claims.author_key_digest.as_ref().map(|digest| hex(digest)),
        "report_id": hex(&claims.report_id),
        "tcb": {
            "current": tcb(claims.tcb.current),
            "reported": tcb(claims.tcb.reported),
            "committed": tcb(claims.tcb.committed),
            "launch": tcb(claims.tcb.launch),
        },
        "mitigations": claims.mitigations.map(|on| json!({
            "launch": format!("{:#x}", on.launch),
            "current": format!("{:#x}", on.current),
        })),
        "root": claims.anchor,
        "valid_until": claims.valid_until.to_string(),
    })
}

fn tcb(tcb: Tcb) -> Value {
    Value::Object(tcb.parts().map(|(name, version)| (name.to_owned(), json!(version))).collect())
}

fn dcap(claims: &DcapClaims) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("version", json!(claims.version));
    add("log_events", json!(claims.log_events));
    add("fmspc", json!(hex(&claims.fmspc)));
    add("tcb_missing", json!(claims.tcb_missing));
    add("tcb_evaluation_data_number", json!(claims.evaluation));
    add("report_data", json!(hex(&claims.report_data)));
    match &claims.subject {
        Subject::Sgx { mr_enclave, mr_signer, product_id, svn, config_id, config_svn, is_debug } => {
            add("mr_enclave", json!(hex(mr_enclave)));
            add("mr_signer", json!(hex(mr_signer)));
            add("isv_prod_id", json!(product_id));
            add("isv_svn", json!(svn));
            add("config_id", json!(hex(config_id)));
            add("config_svn", json!(config_svn));
            add("debug", json!(is_debug));
        }
        Subject::Tdx(guest) => tdx(guest, &mut add),
    }
    add("root", json!(claims.anchor));
    add("valid_until", json!(claims.valid_until.to_string()));
    Value::Object(members)
}

fn tdx(guest: &Guest, add: &mut impl FnMut(&str, Value) -> Option<Value>) {
    add("mr_td", json!(hex(&guest.mr_td)));
    add("mr_config_id", json!(hex(&guest.mr_config_id)));
    add("mr_owner", json!(hex(&guest.mr_owner)));
    add("mr_owner_config", json!(hex(&guest.mr_owner_config)));
    add("rtmr", json!(guest.rtmr.iter().map(|register| hex(register)).collect::<Vec<_>>()));
    add(
        "attributes",
        json!({
            "bits": format!("{:#x}", guest.attributes.bits()),
            "debug": guest.attributes.is_debug(),
            "sept_ve_disable": guest.attributes.disables_sept_ve(),
            "migratable": guest.attributes.is_migratable(),
        }),
    );
    add("xfam", json!(format!("{:#x}", guest.xfam)));
    add("mr_seam", json!(hex(&guest.mr_seam)));
    add("mr_service_td", json!(guest.mr_service_td.as_ref().map(|service| hex(service))));
    add("unread_bytes", json!(guest.unread_bytes));
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
