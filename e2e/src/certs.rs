//! One certificate authority per world and workload certificates as Istio's has them: no names, only a SPIFFE id.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// The mesh's trust domain.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// The mesh's own certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// Where one workload's certificate and key are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `spiffe://cluster.local/ns/<namespace>/sa/<account>`.
    pub spiffe: String,
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that peers are checked against, PEM.
    pub root: PathBuf,
}

/// The SPIFFE id of a service account.
pub fn spiffe(namespace: &str, account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}")
}

impl Authority {
    /// A new authority that keeps its files in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::OrganizationName, TRUST_DOMAIN);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.join("root.pem"), issuer.pem())?;
        Ok(Self {
            issuer,
            folder: folder.into(),
        })
    }

    /// A certificate for `account` of `namespace`.
    pub fn issue(&self, namespace: &str, account: &str) -> Result<Identity> {
        let spiffe = spiffe(namespace, account);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(spiffe.clone())?)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |end: &str| self.folder.join(format!("{namespace}-{account}{end}"));
        let identity = Identity {
            spiffe,
            certificate: file(".pem"),
            key: file("-key.pem"),
            root: self.folder.join("root.pem"),
        };
        std::fs::write(&identity.certificate, certificate.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
