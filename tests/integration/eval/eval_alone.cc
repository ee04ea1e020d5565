// The eval and the simulate command alone, so that their tests build little.
#include <CLI/CLI.hpp>

#include "integration/cli/commands.h"

int main(int argc, char** argv) {
  int exit_code = 0;
  CLI::App app("eval and simulate", "foretoken");
  foretoken::AddEvalCommand(app, exit_code);
  foretoken::AddSimulateCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return e.get_exit_code() == 0 ? app.exit(e) : foretoken::kExitUsage;
  }
  return exit_code;
}
