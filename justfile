# The checks that CI runs. `just` lists them, `just ci` runs all that .ci/run contains.

_default:
    @just --list --unsorted

# Everything that must pass before a change lands
ci:
    .ci/run

# Formatting
fmt:
    .ci/run fmt

# Lints, with warnings as errors
clippy:
    .ci/run clippy

# API documentation, with warnings as errors
doc:
    .ci/run doc

# Links and anchors of README.md and docs/
links:
    .ci/run links

# Only one TLS provider in the dependency tree
tls:
    .ci/run tls

# The product is built without the seams of the simulation
features:
    .ci/run features

# Tests; those whose external tools are missing are skipped
test:
    cargo test --workspace

# Tests with all external tools installed and the image run from a static binary
test-all:
    .ci/run tools static test

# The data path on virtual time, with faults from seeds
simulate:
    .ci/run simulation

# Advisories, licenses and banned crates (needs cargo-deny)
deny:
    cargo deny check

# The book in docs/ (needs mdbook)
book:
    mdbook build docs

# The image from the profile `dist`, its sizes, and the tests that run it (needs root)
image:
    deploy/image/check
