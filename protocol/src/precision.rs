use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::unknown;

/// How a model's matrices are stored while it computes. Products add in 32 bits either way, and a matrix that was edited
/// is kept in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (IEEE half precision): exact for a checkpoint that is stored so, otherwise rounded.
    F16,
    /// Whole numbers of eight bits with one scale for 32 inputs, in blocks; embeddings and norms in 32-bit floats.
    Int8,
}

impl Precision {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name that reports and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Whether it is the one that nobody has to name.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == text)
            .ok_or_else(|| unknown("precision", text, &names))
    }
}
