// The benchmarks under `foretoken bench`, one function and one file each; bench_command.cc calls them all.
#pragma once

namespace CLI {
class App;
}

namespace foretoken {

// One a line in the order of `bench --help`.
void AddBenchClusterCommand(CLI::App& bench, int& exit_code);
void AddBenchDecideCommand(CLI::App& bench, int& exit_code);
void AddBenchGatewayCommand(CLI::App& bench, int& exit_code);
void AddBenchPredictCommand(CLI::App& bench, int& exit_code);
void AddBenchSimulateCommand(CLI::App& bench, int& exit_code);
void AddBenchWatchCommand(CLI::App& bench, int& exit_code);

}  // namespace foretoken
