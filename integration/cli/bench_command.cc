// `foretoken bench`: the benchmarks that users and acceptance read.
#include <CLI/CLI.hpp>

#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"

namespace foretoken {

void AddBenchCommand(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "Benchmarks of the program's parts; each names the machine and its parameters");
  bench->require_subcommand(1);
  bench->footer("Example: foretoken bench simulate");
  AddBenchClusterCommand(*bench, exit_code);
  AddBenchDecideCommand(*bench, exit_code);
  AddBenchGatewayCommand(*bench, exit_code);
  AddBenchPredictCommand(*bench, exit_code);
  AddBenchSimulateCommand(*bench, exit_code);
  AddBenchWatchCommand(*bench, exit_code);
}

}  // namespace foretoken
