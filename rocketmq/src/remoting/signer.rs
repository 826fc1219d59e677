//! Signing requests for brokers with access control. Source: `protocol.md` section 5.1, `AclClientRPCHook`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::protocol::ExtFields;

/// Adds who asks, and the proof, to a request.
#[derive(Clone)]
pub(crate) struct Signer {
    access_key: String,
    security_token: Option<String>,
    mac: Hmac<Sha1>,
}

impl Signer {
    pub(crate) fn new(access_key: String, secret_key: &str, security_token: Option<String>) -> Option<Self> {
        let mac = Hmac::new_from_slice(secret_key.as_bytes()).ok()?;
        Some(Self { access_key, security_token, mac })
    }

    /// Signs what the request holds by now: every other field has to be there already.
    pub(crate) fn sign(&self, fields: &mut ExtFields, body: &[u8]) {
        fields.put("AccessKey", self.access_key.clone());
        if let Some(token) = &self.security_token {
            fields.put("SecurityToken", token.clone());
        }
        let mut signed: Vec<_> = fields.iter().filter(|(name, _)| *name != "Signature").collect();
        signed.sort_unstable_by_key(|(name, _)| *name);
        let mut mac = self.mac.clone();
        for (_, value) in signed {
            mac.update(value.as_bytes());
        }
        mac.update(body);
        fields.put("Signature", STANDARD.encode(mac.finalize().into_bytes()));
    }
}

/// Without the keys.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_java_client() {
        for (token, expected) in
            [(None, "9v8Qi3WDbHVX3Z80hp2fRDfeTBk="), (Some("tok"), "vNIuUygrh3XmxazFo+Ye1w9owFs=")]
        {
            let signer = Signer::new("rocketmq2".into(), "12345678", token.map(str::to_owned)).unwrap();
            let mut fields = ExtFields::default();
            for (name, value) in [("topic", "t1"), ("queueId", "0"), ("consumerGroup", "g1")] {
                fields.put(name, value);
            }
            signer.sign(&mut fields, b"body");
            assert_eq!(fields.get("Signature"), Some(expected));
        }
    }
}
