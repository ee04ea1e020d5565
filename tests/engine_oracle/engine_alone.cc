// The `engine` command alone: what the comparisons with the specification run, without the rest of the program.
#include <CLI/CLI.hpp>
#include <iostream>

#include "integration/cli/commands.h"

int main(int argc, char** argv) {
  int exit_code = foretoken::kExitOk;
  CLI::App app("The engine command alone", "engine_alone");
  foretoken::AddEngineCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? foretoken::kExitOk : foretoken::kExitUsage;
  }
  return exit_code;
}
