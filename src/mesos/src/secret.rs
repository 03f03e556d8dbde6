//! Values of secrets, on their way from `--secrets-dir` into a task: never printed, never compared.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use podium_proto::mesos::v1;

/// The value of one secret.
#[derive(Clone)]
pub struct SecretValue(Bytes);

impl SecretValue {
    /// Wraps what was read.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        SecretValue(value.into())
    }

    /// For Mesos, which hands it to the container and logs it nowhere.
    pub(crate) fn to_mesos(&self) -> v1::Secret {
        v1::Secret {
            r#type: Some(v1::secret::Type::Value.into()),
            value: Some(v1::secret::Value { data: self.0.clone() }),
            ..v1::Secret::default()
        }
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Values by source, as `secrets.<name>.source` of a definition names them.
pub type SecretValues = BTreeMap<String, SecretValue>;
