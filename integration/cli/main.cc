// The `foretoken` program: wires the commands together and turns command-line errors into exit code 2 with the nearest
// valid name. What a command does is in its own file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "integration/cli/commands.h"
#include "runtime/base/nearest_name.h"

namespace foretoken {
namespace {

constexpr char kVersion[] = "foretoken 0.1.0";

// One line per command, e.g. AddSimulateCommand(app, exit_code); the order is the order in --help.
void AddCommands(CLI::App& app, int& exit_code) {
  AddQuickstartCommand(app, exit_code);
  AddAccuracyCommand(app, exit_code);
  AddBenchCommand(app, exit_code);
  AddDeployCommand(app, exit_code);
  AddEngineCommand(app, exit_code);
  AddEvalCommand(app, exit_code);
  AddGatewayCommand(app, exit_code);
  AddLoadCommand(app, exit_code);
  AddMirrorCommand(app, exit_code);
  AddReplayCommand(app, exit_code);
  AddExplainCommand(app, exit_code);
  AddServeCommand(app, exit_code);
  AddStatusCommand(app, exit_code);
  AddTopCommand(app, exit_code);
  AddDashboardCommand(app, exit_code);
  AddInstancesCommand(app, exit_code);
  AddSimulateCommand(app, exit_code);
  AddTableCommand(app, exit_code);
  AddTraceCommand(app, exit_code);
  AddValidateCommand(app, exit_code);
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

int Unknown(const std::string& what, const std::string& given, const std::vector<std::string>& valid, const std::string& help) {
  std::cerr << "foretoken: unknown " << what << " \"" << given << "\"";
  if (!valid.empty()) std::cerr << ": did you mean \"" << NearestName(given, {valid.begin(), valid.end()}) << "\"?";
  std::cerr << " (" << help << " lists them all)\n";
  return kExitUsage;
}

// The innermost command that the command line named.
const CLI::App& Deepest(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : Deepest(*parsed.back());
}

std::string FullName(const CLI::App& command) {
  return command.get_parent() == nullptr ? "foretoken" : FullName(*command.get_parent()) + " " + command.get_name();
}

// One line on stderr for a command line that does not parse. An unknown name comes first: CLI11 would rather complain of
// the required option that the mistyped one was meant to be.
int OnParseError(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = Deepest(app);
  const std::string name = FullName(command), help = name + " --help";
  for (const std::string& given : command.remaining()) {
    if (given.rfind("-", 0) == 0) return Unknown("option", given.substr(0, given.find('=')), OptionNames(command), help);
    if (const auto names = CommandNames(command); !names.empty()) return Unknown("command", given, names, help);
    std::cerr << "foretoken: unexpected argument \"" << given << "\" (" << help << " shows what " << name << " takes)\n";
    return kExitUsage;
  }
  std::cerr << "foretoken: " << error.what() << " (see " << help << ")\n";
  return kExitUsage;
}

int Run(int argc, char** argv) {
  int exit_code = kExitOk;
  CLI::App app("Schedules LLM inference requests by predicting, per candidate instance, what would happen there.", "foretoken");
  app.set_version_flag("--version", kVersion, "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.footer(
      "Examples:\n"
      "  foretoken simulate --topology configs/topologies/mixed-gpu.yaml --trace trace.csv --policy min_e2e --json\n"
      "  foretoken <command> --help\n"
      "Exit codes: 0 ok, 1 failed, 2 usage or bad input.");
  AddCommands(app, exit_code);

  if (argc > 1 && argv[1][0] != '-') {  // before CLI11, which would complain of the unknown command's options first
    const std::vector<std::string> names = CommandNames(app);
    if (std::find(names.begin(), names.end(), argv[1]) == names.end())
      return Unknown("command", argv[1], names, "foretoken --help");
  }
  if (argc == 1) {
    std::cerr << app.help();
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return e.get_exit_code() == 0 ? app.exit(e) : OnParseError(app, e);  // 0: --help, --version
  }
  return exit_code;
}

}  // namespace
}  // namespace foretoken

int main(int argc, char** argv) { return foretoken::Run(argc, argv); }
