//! Folders that are embedded are looked at again when something is added to them.

fn main() {
    for folder in ["templates", "../sdk/src", "../wit"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
