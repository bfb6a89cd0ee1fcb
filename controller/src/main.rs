use std::process::ExitCode;

fn main() -> ExitCode {
    drover_controller::run()
}
