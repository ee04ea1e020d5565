// The `mirror` command alone, without the rest of the program.
#include <CLI/CLI.hpp>
#include <iostream>

#include "integration/cli/commands.h"

int main(int argc, char** argv) {
  int exit_code = foretoken::kExitOk;
  CLI::App app("The mirror command alone", "mirror_alone");
  foretoken::AddMirrorCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? foretoken::kExitOk : foretoken::kExitUsage;
  }
  return exit_code;
}
