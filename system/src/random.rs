//! Randomness: a cryptographically secure generator, seeded by the operating system.

#![allow(clippy::disallowed_methods, reason = "the only place that draws from the system")]

use rand::{
    RngExt,
    distr::{
        Distribution, StandardUniform,
        uniform::{SampleRange, SampleUniform},
    },
};

/// The generator that [`rng`] returns.
#[cfg(not(feature = "simulation"))]
pub type SystemRng = rand::rngs::ThreadRng;

#[cfg(feature = "simulation")]
pub use simulated::SystemRng;

/// Returns the generator.
#[inline]
pub fn rng() -> SystemRng {
    #[cfg(not(feature = "simulation"))]
    return rand::rng();
    #[cfg(feature = "simulation")]
    return SystemRng;
}

/// Returns a random value: a number, or an array of numbers.
#[inline]
pub fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    rng().random()
}

/// Returns a random number of this range.
#[inline]
pub fn random_range<T: SampleUniform, R: SampleRange<T>>(range: R) -> T {
    rng().random_range(range)
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::convert::Infallible;

    use rand::{Rng, TryCryptoRng, TryRng};

    use crate::simulation;

    /// Draws from the machine that the current task runs on.
    #[derive(Clone, Copy, Debug)]
    pub struct SystemRng;

    impl TryRng for SystemRng {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut bytes = [0; 4];
            self.fill_bytes(&mut bytes);
            Ok(u32::from_le_bytes(bytes))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut bytes = [0; 8];
            self.fill_bytes(&mut bytes);
            Ok(u64::from_le_bytes(bytes))
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            match simulation::current() {
                Some(machine) => machine.fill_random(bytes),
                None => rand::rng().fill_bytes(bytes),
            }
            Ok(())
        }
    }

    impl TryCryptoRng for SystemRng {}
}
