//! Compiling in a process of its own. This test program is its own compiler, as a daemon is: hence no harness.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics when it fails, and says what it did"
)]

mod support;

use plugins_runtime::placement::Verdict;
use plugins_runtime::{CompileLimits, Compiler, Limits, LoadError, Runtime};
use std::fmt::Write as _;
use std::process::ExitCode;
use support::{Guest, input};

fn runtime(compile: CompileLimits) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { compile, ..Limits::default() };
    let compiler = Compiler::this_program();
    assert!(matches!(compiler, Compiler::Child { .. }));
    (Runtime::with_compiler(limits, folder.path(), compiler).unwrap(), folder)
}

fn a_component_compiled_by_a_child_answers_as_any_other() {
    let (runtime, _folder) = runtime(CompileLimits::default());
    let decision = runtime.load(&Guest::default().build()).unwrap().place(&input(2)).unwrap();
    assert!(matches!(decision.verdict, Verdict::Place { .. }));
}

fn what_a_child_compiled_is_what_this_process_would_have_compiled() {
    let (runtime, folder) = runtime(CompileLimits::default());
    let component = Guest::default().build();
    runtime.load(&component).unwrap();
    // It finds the code in the cache: the name covers everything in the engine that shapes code.
    let missing = Compiler::Child { program: "/nonexistent".into() };
    let limits = Limits::default();
    Runtime::with_compiler(limits, folder.path(), missing).unwrap().load(&component).unwrap();
}

fn a_damaged_component_is_refused_in_the_words_of_the_engine() {
    let (runtime, _folder) = runtime(CompileLimits::default());
    let mut component = Guest::default().build();
    component.pop();
    let error = runtime.load(&component).unwrap_err();
    assert!(matches!(&error, LoadError::Damaged { detail } if detail.contains("end")), "{error:?}");
}

/// A component with that many functions, each of them long.
fn huge(functions: usize) -> Vec<u8> {
    let mut text = "(component (core module".to_owned();
    for _ in 0..functions {
        text += "(func (param i32) (result i32) (local i32) local.get 0";
        for constant in 0..400 {
            write!(text, " i32.const {constant} i32.mul local.tee 1 local.get 0 i32.xor").unwrap();
        }
        text += ")";
    }
    wat::parse_str(text + "))").unwrap()
}

fn a_component_that_takes_too_long_to_compile_is_too_costly() {
    let (runtime, _folder) = runtime(CompileLimits { cpu_s: 1, ..CompileLimits::default() });
    let error = runtime.load(&huge(3000)).unwrap_err();
    assert!(
        matches!(&error, LoadError::TooCostly { detail } if detail.contains("1 s of processor")),
        "{error:?}"
    );
}

fn a_component_that_takes_too_much_memory_to_compile_is_too_costly() {
    let compile = CompileLimits { memory_bytes_max: 192 << 20, ..CompileLimits::default() };
    let (runtime, _folder) = runtime(compile);
    let error = runtime.load(&huge(3000)).unwrap_err();
    assert!(matches!(&error, LoadError::TooCostly { .. }), "{error:?}");
    // The runtime goes on as if nothing had been.
    runtime.load(&Guest::default().build()).unwrap();
}

fn a_compiler_that_is_not_there_is_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Compiler::Child { program: "/nonexistent/compiler".into() };
    let runtime = Runtime::with_compiler(Limits::default(), folder.path(), missing).unwrap();
    let error = runtime.load(&Guest::default().build()).unwrap_err();
    assert!(error.to_string().contains("cannot start /nonexistent/compiler"), "{error}");
}

fn main() -> ExitCode {
    if let Some(code) = plugins_runtime::compile_child() {
        return code;
    }
    let claims: [(&str, fn()); 6] = [
        (
            "a_component_compiled_by_a_child_answers_as_any_other",
            a_component_compiled_by_a_child_answers_as_any_other,
        ),
        (
            "what_a_child_compiled_is_what_this_process_would_have_compiled",
            what_a_child_compiled_is_what_this_process_would_have_compiled,
        ),
        (
            "a_damaged_component_is_refused_in_the_words_of_the_engine",
            a_damaged_component_is_refused_in_the_words_of_the_engine,
        ),
        (
            "a_component_that_takes_too_long_to_compile_is_too_costly",
            a_component_that_takes_too_long_to_compile_is_too_costly,
        ),
        (
            "a_component_that_takes_too_much_memory_to_compile_is_too_costly",
            a_component_that_takes_too_much_memory_to_compile_is_too_costly,
        ),
        (
            "a_compiler_that_is_not_there_is_said_to_be_missing",
            a_compiler_that_is_not_there_is_said_to_be_missing,
        ),
    ];
    for (name, claim) in claims {
        claim();
        println!("{name} ... ok");
    }
    ExitCode::SUCCESS
}
