//! The public areas of the keys the agent asks for.
//!
//! EK templates must match the maker's bit for bit, or the TPM derives another key than the certified one:
//! TCG EK Credential Profile 2.5, annex B. Storage key: TCG TPM v2.0 Provisioning Guidance §7.5.1.

use tpm2_protocol::basic::{TpmUint16, TpmUint32};
use tpm2_protocol::data::{
    Tpm2bDigest, Tpm2bEccParameter, Tpm2bPublic, Tpm2bPublicKeyRsa, TpmAlgId, TpmEccCurve, TpmaObject,
    TpmsEccParms, TpmsEccPoint, TpmsKeyedhashParms, TpmsRsaParms, TpmsSchemeHash, TpmtEccScheme, TpmtPublic,
    TpmtRsaScheme, TpmtSymDefObject, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits,
    TpmuSymMode,
};

use super::TpmError;
use super::command::argument;
use super::ek::EkKind;

/// A restricted decryption key: parent of the keys the agent makes.
pub(super) fn storage_key() -> Tpm2bPublic {
    let attributes = fixed() | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA | parent();
    ecc(TpmAlgId::Sha256, attributes, Tpm2bDigest::new(), storage_ecc(TpmEccCurve::NistP256, 128), no_point())
}

/// An attestation key: restricted, so that it signs nothing which pretends to be the TPM's word.
pub(super) fn attestation_key() -> Tpm2bPublic {
    let attributes = signing() | TpmaObject::RESTRICTED;
    ecc(TpmAlgId::Sha256, attributes, Tpm2bDigest::new(), ecdsa(), no_point())
}

/// The same of RSA-2048, which takes a TPM some five times as long to sign with.
pub(super) fn attestation_key_rsa() -> Tpm2bPublic {
    let scheme = TpmtRsaScheme {
        scheme: TpmAlgId::Rsassa,
        details: TpmuAsymScheme::Hash(TpmsSchemeHash { hash_alg: TpmAlgId::Sha256 }),
    };
    rsa(signing() | TpmaObject::RESTRICTED, scheme)
}

/// The device key: signs what the agent wants signed, and never leaves the TPM.
pub(super) fn device_key() -> Tpm2bPublic {
    ecc(TpmAlgId::Sha256, signing(), Tpm2bDigest::new(), ecdsa(), no_point())
}

/// A key of RSA-2048 that signs as it is asked to, for programs that verify nothing else.
pub(super) fn classic_key() -> Tpm2bPublic {
    rsa(signing(), TpmtRsaScheme::default())
}

fn rsa(object_attributes: TpmaObject, scheme: TpmtRsaScheme) -> Tpm2bPublic {
    let parameters = TpmsRsaParms {
        scheme,
        key_bits: TpmUint16::new(2048),
        exponent: TpmUint32::new(0),
        ..TpmsRsaParms::default()
    };
    Tpm2bPublic {
        inner: TpmtPublic {
            object_type: TpmAlgId::Rsa,
            name_alg: TpmAlgId::Sha256,
            object_attributes,
            auth_policy: Tpm2bDigest::new(),
            parameters: TpmuPublicParms::Rsa(parameters),
            unique: TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::default()),
        },
    }
}

/// A key that secrets are sealed to: it takes part in exchanges and signs nothing.
pub(super) fn exchange_key() -> Tpm2bPublic {
    let attributes = fixed() | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA | TpmaObject::DECRYPT;
    let parameters = TpmsEccParms { curve_id: TpmEccCurve::NistP256, ..TpmsEccParms::default() };
    ecc(TpmAlgId::Sha256, attributes, Tpm2bDigest::new(), parameters, no_point())
}

/// Data that is given back by a policy and in no other way.
pub(super) fn sealed_data(auth_policy: Tpm2bDigest) -> Tpm2bPublic {
    Tpm2bPublic {
        inner: TpmtPublic {
            object_type: TpmAlgId::KeyedHash,
            name_alg: TpmAlgId::Sha256,
            object_attributes: TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::NO_DA,
            auth_policy,
            parameters: TpmuPublicParms::KeyedHash(TpmsKeyedhashParms::default()),
            unique: TpmuPublicId::KeyedHash(Tpm2bDigest::new()),
        },
    }
}

/// The endorsement key of the kind.
pub(super) fn endorsement_key(kind: EkKind) -> Result<Tpm2bPublic, TpmError> {
    let refused = argument("CreatePrimary");
    let low = fixed() | TpmaObject::ADMIN_WITH_POLICY | parent();
    let policy = Tpm2bDigest::try_from(kind.policy()).map_err(&refused)?;
    match kind {
        EkKind::Rsa2048 => {
            let unique = Tpm2bPublicKeyRsa::try_from([0; 256].as_slice()).map_err(&refused)?;
            let parameters = TpmsRsaParms {
                symmetric: aes_cfb(128),
                key_bits: TpmUint16::new(2048),
                exponent: TpmUint32::new(0),
                ..TpmsRsaParms::default()
            };
            Ok(Tpm2bPublic {
                inner: TpmtPublic {
                    object_type: TpmAlgId::Rsa,
                    name_alg: TpmAlgId::Sha256,
                    object_attributes: low,
                    auth_policy: policy,
                    parameters: TpmuPublicParms::Rsa(parameters),
                    unique: TpmuPublicId::Rsa(unique),
                },
            })
        }
        EkKind::EccP256 => {
            let zero = Tpm2bEccParameter::try_from([0; 32].as_slice()).map_err(&refused)?;
            let point = TpmsEccPoint { x: zero, y: zero };
            Ok(ecc(TpmAlgId::Sha256, low, policy, storage_ecc(TpmEccCurve::NistP256, 128), point))
        }
        EkKind::EccP384 => {
            let attributes = low | TpmaObject::USER_WITH_AUTH;
            Ok(ecc(TpmAlgId::Sha384, attributes, policy, storage_ecc(TpmEccCurve::NistP384, 256), no_point()))
        }
    }
}

/// Prefixes `bytes` with their length.
pub(super) fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

fn ecc(
    name_alg: TpmAlgId,
    object_attributes: TpmaObject,
    auth_policy: Tpm2bDigest,
    parameters: TpmsEccParms,
    point: TpmsEccPoint,
) -> Tpm2bPublic {
    Tpm2bPublic {
        inner: TpmtPublic {
            object_type: TpmAlgId::Ecc,
            name_alg,
            object_attributes,
            auth_policy,
            parameters: TpmuPublicParms::Ecc(parameters),
            unique: TpmuPublicId::Ecc(point),
        },
    }
}

fn fixed() -> TpmaObject {
    TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::SENSITIVE_DATA_ORIGIN
}

fn parent() -> TpmaObject {
    TpmaObject::RESTRICTED | TpmaObject::DECRYPT
}

/// No dictionary-attack protection: there is no password, and a lockout must not stop attestation.
fn signing() -> TpmaObject {
    fixed() | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA | TpmaObject::SIGN_ENCRYPT
}

fn storage_ecc(curve_id: TpmEccCurve, aes_bits: u16) -> TpmsEccParms {
    TpmsEccParms { symmetric: aes_cfb(aes_bits), curve_id, ..TpmsEccParms::default() }
}

fn ecdsa() -> TpmsEccParms {
    let details = TpmuAsymScheme::Hash(TpmsSchemeHash { hash_alg: TpmAlgId::Sha256 });
    TpmsEccParms {
        scheme: TpmtEccScheme { scheme: TpmAlgId::Ecdsa, details },
        curve_id: TpmEccCurve::NistP256,
        ..TpmsEccParms::default()
    }
}

fn aes_cfb(bits: u16) -> TpmtSymDefObject {
    TpmtSymDefObject {
        algorithm: TpmAlgId::Aes,
        key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(bits)),
        mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
    }
}

fn no_point() -> TpmsEccPoint {
    TpmsEccPoint::default()
}
