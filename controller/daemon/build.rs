//! The dashboard is embedded: build again when it changes, or appears.

fn main() {
    println!("cargo::rerun-if-changed=../../web/dist");
}
