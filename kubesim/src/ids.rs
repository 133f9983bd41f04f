//! Names and IDs in the formats of Kubernetes.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Generates an object's UID: a random UUID, version 4.
pub(crate) fn uid() -> String {
    let bits: u128 = system::random::random();
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Generates the ID of a container instance: `containerd://` and 64 hex digits.
pub(crate) fn container_id() -> String {
    let [high, low]: [u128; 2] = system::random::random();
    format!("containerd://{high:032x}{low:032x}")
}

/// Generates the pod names of a Deployment: `web-7d4b9c5f8d-x2x9z`. The same seed gives the same
/// names.
pub(crate) fn replica_names(seed: u64, namespace: &str, name: &str, count: u32) -> Replicas {
    let mixed = namespace
        .bytes()
        .chain([0])
        .chain(name.bytes())
        .fold(seed ^ 0x5851_f42d_4c95_7f2d, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mut random = StdRng::seed_from_u64(mixed);
    let mut letters = |count: usize| -> String {
        (0..count)
            .map(|_| char::from(*LETTERS.choose(&mut random).unwrap_or(&b'x')))
            .collect()
    };
    let hash = letters(10);
    let pods = (0..count).map(|_| format!("{name}-{hash}-{}", letters(5))).collect();
    Replicas { hash, pods }
}

/// Pod names of one Deployment.
pub(crate) struct Replicas {
    /// Value of the label `pod-template-hash`.
    pub(crate) hash: String,
    /// Names of the pods.
    pub(crate) pods: Vec<String>,
}

/// Kubernetes' alphabet for generated names: without vowels, so that no words appear.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
