// The commands of the program, one function each; main.cc calls them all.
// A command registers itself as a subcommand of `app` with its options, a help text and an example (footer), and sets
// `exit_code` in its callback. It never calls exit() and throws nothing out of the callback.
#pragma once

namespace CLI {
class App;
}

namespace foretoken {

// The program's exit codes.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;  // and bad input

// One a line in the order of --help.
void AddQuickstartCommand(CLI::App& app, int& exit_code);
void AddAccuracyCommand(CLI::App& app, int& exit_code);
void AddBenchCommand(CLI::App& app, int& exit_code);
void AddDeployCommand(CLI::App& app, int& exit_code);
void AddEngineCommand(CLI::App& app, int& exit_code);
void AddEvalCommand(CLI::App& app, int& exit_code);
void AddGatewayCommand(CLI::App& app, int& exit_code);
void AddLoadCommand(CLI::App& app, int& exit_code);
void AddMirrorCommand(CLI::App& app, int& exit_code);
void AddReplayCommand(CLI::App& app, int& exit_code);
void AddExplainCommand(CLI::App& app, int& exit_code);
void AddServeCommand(CLI::App& app, int& exit_code);
void AddStatusCommand(CLI::App& app, int& exit_code);
void AddTopCommand(CLI::App& app, int& exit_code);
void AddDashboardCommand(CLI::App& app, int& exit_code);
void AddInstancesCommand(CLI::App& app, int& exit_code);
void AddSimulateCommand(CLI::App& app, int& exit_code);
void AddTableCommand(CLI::App& app, int& exit_code);
void AddTraceCommand(CLI::App& app, int& exit_code);
void AddValidateCommand(CLI::App& app, int& exit_code);

}  // namespace foretoken
