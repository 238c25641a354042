//! What computes: chosen by a flag among what was compiled in.

use burn::tensor::Device;
use rectify_protocol::{Failure, unknown};

/// A device by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU: always there.
    #[default]
    Flex,
    /// A GPU through Vulkan.
    Vulkan,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    const ALL: [Self; 3] = [Self::Flex, Self::Vulkan, Self::Cuda];

    /// The name reports and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    /// The device itself, if this program was built with it.
    pub fn open(self) -> Result<Device, Failure> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "every device may be compiled in")]
            _ => Err(Failure::bad_input(format!(
                "this program was built without {name}; build it with `cargo build --release -p rectify-server --features {name}`",
                name = self.name()
            ))),
        }
    }
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| unknown("device", text, &names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<DeviceKind, &str>) {
        assert_eq!(text.parse::<DeviceKind>(), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_device_is_known_by_its_name() {
        check("flex", Ok(DeviceKind::Flex));
        check("cuda", Ok(DeviceKind::Cuda));
        check("vulcan", Err("unknown device \"vulcan\"; did you mean \"vulkan\"? known: flex, vulkan, cuda"));
        check("gpu", Err("unknown device \"gpu\"; known: flex, vulkan, cuda"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_compiled_in_says_how_to_build_it() {
        let failure = DeviceKind::Cuda.open().unwrap_err();
        assert!(failure.message.contains("--features cuda"), "{failure}");
    }
}
