// `foretoken table`: step-time tables: import a measured one, fit one to step records, show one, compare two.
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "configs/step_table.h"
#include "configs/tables/embedded_tables.h"
#include "integration/cli/commands.h"
#include "integration/tables/compare.h"
#include "integration/tables/csv.h"
#include "integration/tables/fit.h"
#include "integration/tables/render.h"
#include "integration/tables/silicon.h"
#include "integration/tables/vllm_profile.h"

namespace foretoken {
namespace {

struct Arguments {
  std::string format, in, out, model_shape, law = "table", html, other;
  double thin = 0;
  int64_t cv = 0;
  bool json = false;
};

int Fail(int code, const std::string& message) {
  std::cerr << "foretoken table: " << message << "\n";
  return code;
}

// A file, or the name of a table that the program carries.
Result<StepTimeTable> Load(const std::string& name) {
  if (const auto embedded = EmbeddedTableText(name)) return ParseStepTable(*embedded, name);
  const Result<std::string> text = tables::ReadTextFile(name);
  if (!text.ok()) {
    std::string known;
    for (const EmbeddedTable& t : EmbeddedTables()) known += (known.empty() ? "" : ", ") + std::string(t.name);
    return Error{text.error().message + "; built-in tables: " + known};
  }
  return ParseStepTable(*text, name);
}

Result<StepTableGrid> ImportGrid(const Arguments& args) {
  if (args.format == "vllm-profile") {
    const Result<tables::VllmProfile> profile = tables::ReadVllmProfile(args.in, args.model_shape);
    if (!profile.ok()) return profile.error();
    for (const std::string& a : profile->assumptions) std::cerr << "assumed: " << a << "\n";
    int64_t changed = 0;
    Result<StepTableGrid> grid = tables::ProfileAsGrid(*profile, changed);
    std::cerr << "made monotone: " << changed << " values moved\n";
    return grid;
  }
  const Result<std::string> text = tables::ReadTextFile(args.in);
  if (!text.ok()) return text.error();
  if (args.format == "silicon") {
    const Result<std::string> index = tables::ReadTextFile(args.in.substr(0, args.in.find_last_of('/') + 1) + "index.json");
    Result<tables::SiliconImport> import = tables::ImportSilicon(*text, args.in, index.ok() ? *index : "");
    if (!import.ok()) return import.error();
    std::cerr << "made monotone: " << import->changed << " values moved, by " << 100 * import->largest_move << " % at most\n";
    if (import->left_out > 0) {
      std::cerr << "left out: " << import->left_out
                << " rows with decodes beside a context before the chunk; error of the added context there: mean "
                << 100 * import->left_out_mean_error << " %, largest " << 100 * import->left_out_max_error << " %\n";
    }
    return std::move(import->grid);
  }
  if (args.format == "csv") {
    Result<StepTableGrid> grid = ParseStepTableGrid(*text, args.in);
    if (grid.ok()) std::cerr << "made monotone: " << MakeMonotone(*grid) << " values moved\n";
    return grid;
  }
  Result<std::vector<tables::StepRecord>> records = tables::ReadStepRecords(*text, args.in);
  if (!records.ok()) return records.error();
  std::cerr << "dropped as outliers: " << tables::DropOutliers(*records) << " steps\n";
  return tables::FitTable(*records);
}

int RunImport(const Arguments& args) {
  Result<StepTableGrid> grid = ImportGrid(args);
  if (!grid.ok()) return Fail(kExitUsage, grid.error().message);
  if (args.thin > 0) {
    int64_t capacity = 0;
    for (const auto& [key, value] : grid->notes) {
      if (key == "kv_capacity_tokens") capacity = std::atoll(value.c_str());
    }
    StepTableGrid thin = tables::Thin(*grid, args.thin / 100, 10 * args.thin / 100, capacity);
    const Result<StepTimeTable> table = StepTimeTable::Make(thin);
    if (!table.ok()) return Fail(kExitFailed, table.error().message);
    const tables::TableError e = tables::CompareToGrid(*table, *grid, capacity);
    char note[160];
    std::snprintf(note, sizeof note,
                  "error on the dropped steps that fit into the KV capacity: mean %.2f %%, p99 %.2f %%, largest %.2f %%",
                  100 * e.mean, 100 * e.p99, 100 * e.max);
    thin.notes.emplace_back("thinned", note);
    std::cerr << "thinned: " << note << "\n";
    *grid = std::move(thin);
  }
  const std::string text = FormatStepTable(*grid);
  if (const Result<StepTimeTable> again = ParseStepTable(text, args.out); !again.ok())
    return Fail(kExitFailed, again.error().message);
  if (const Status s = tables::WriteTextFile(args.out, text); !s.ok()) return Fail(kExitFailed, s.error().message);
  std::cerr << args.out << ": " << text.size() << " bytes\n";
  return kExitOk;
}

int RunFit(const Arguments& args) {
  const Result<std::string> text = tables::ReadTextFile(args.in);
  if (!text.ok()) return Fail(kExitUsage, text.error().message);
  Result<std::vector<tables::StepRecord>> records = tables::ReadStepRecords(*text, args.in);
  if (!records.ok()) return Fail(kExitUsage, records.error().message);
  const size_t dropped = tables::DropOutliers(*records);
  const bool affine = args.law == "affine";
  boost::json::object out = {{"law", args.law}, {"steps", records->size()}, {"dropped", dropped}};
  if (args.cv > 1) {
    const auto errors = tables::CrossValidate(*records, affine ? tables::FitKind::kAffine : tables::FitKind::kTable,
                                              static_cast<size_t>(args.cv), 1);
    if (!errors.ok()) return Fail(kExitUsage, errors.error().message);
    double mean = 0;
    for (double e : *errors) mean += e / static_cast<double>(errors->size());
    out["cv_folds"] = args.cv;
    out["cv_mape"] = mean;
  }
  if (affine) {
    const auto c = tables::FitAffine(*records);
    if (!c.ok()) return Fail(kExitUsage, c.error().message);
    out["fit_mape"] = tables::MeanError(AffineStepTime(*c), *records);
    out["step_us"] = c->step_ns / 1e3;
    out["prefill_token_us"] = c->prefill_token_ns / 1e3;
    out["decode_seq_us"] = c->decode_seq_ns / 1e3;
    out["kv_token_us"] = c->kv_token_ns / 1e3;
  } else {
    Result<StepTableGrid> grid = tables::FitTable(*records);
    if (!grid.ok()) return Fail(kExitUsage, grid.error().message);
    grid->notes = {{"source", "fitted by `foretoken table fit` to " + std::to_string(records->size()) + " steps"}};
    const Result<StepTimeTable> table = StepTimeTable::Make(*grid);
    if (!table.ok()) return Fail(kExitFailed, table.error().message);
    out["fit_mape"] = tables::MeanError(*table, *records);
    if (!args.out.empty()) {
      if (const Status s = tables::WriteTextFile(args.out, FormatStepTable(*grid)); !s.ok())
        return Fail(kExitFailed, s.error().message);
    }
  }
  if (args.json) {
    std::cout << boost::json::serialize(out) << "\n";
  } else {
    for (const auto& [key, value] : out)
      std::cout << std::string(key) << ": " << (value.is_string() ? value.as_string().c_str() : boost::json::serialize(value))
                << "\n";
  }
  return kExitOk;
}

int RunShow(const Arguments& args) {
  const Result<StepTimeTable> table = Load(args.in);
  if (!table.ok()) return Fail(kExitUsage, table.error().message);
  if (!args.html.empty()) {
    if (const Status s = tables::WriteTextFile(args.html, tables::TableHtml(*table, args.in)); !s.ok())
      return Fail(kExitFailed, s.error().message);
    std::cerr << args.html << " written\n";
  }
  if (args.json) {
    std::cout << tables::TableJson(*table) << "\n";
  } else if (args.html.empty()) {
    std::cout << tables::TableText(*table, isatty(STDOUT_FILENO) != 0);
  }
  return kExitOk;
}

int RunCompare(const Arguments& args) {
  const Result<StepTimeTable> a = Load(args.in), b = Load(args.other);
  if (!a.ok()) return Fail(kExitUsage, a.error().message);
  if (!b.ok()) return Fail(kExitUsage, b.error().message);
  const tables::Comparison c = tables::CompareTables(*a, *b);
  if (args.json) {
    std::cout << boost::json::serialize(boost::json::object{{"steps", c.steps},
                                                            {"spearman", c.spearman},
                                                            {"agree_at_1", c.agree_at_1},
                                                            {"mean_difference", c.mean},
                                                            {"p95_difference", c.p95},
                                                            {"p99_difference", c.p99},
                                                            {"bias", c.bias}})
              << "\n";
    return kExitOk;
  }
  std::printf("%zu steps of both grids' common range\n", c.steps);
  std::printf("Spearman          %8.4f\nAgree@1 of 8      %8.4f\nbias (B over A)   %+8.2f %%\n", c.spearman, c.agree_at_1,
              100 * c.bias);
  std::printf("difference  mean  %8.2f %%\n            p95   %8.2f %%\n            p99   %8.2f %%\n", 100 * c.mean, 100 * c.p95,
              100 * c.p99);
  return kExitOk;
}

}  // namespace

void AddTableCommand(CLI::App& app, int& exit_code) {
  auto args = std::make_shared<Arguments>();
  CLI::App* table = app.add_subcommand("table", "Step-time tables: import, fit, show, compare");
  table->require_subcommand(1);
  table->footer("Example:\n  foretoken table show h100-llama-3.1-8b");

  CLI::App* import = table->add_subcommand(
      "import", "Convert a measured table to our CSV; makes it monotone and says how many values it moved");
  import->add_option("--format", args->format, "silicon, vllm-profile, batch-trace or csv")
      ->required()
      ->check(CLI::IsMember({"silicon", "vllm-profile", "batch-trace", "csv"}));
  import->add_option("IN", args->in, "The file, or the profile's directory")->required();
  import->add_option("--out", args->out, "CSV to write")->required();
  import->add_option("--model-shape", args->model_shape, "vllm-profile: the model's config.json");
  import->add_option("--thin", args->thin, "Drop grid points while the mean error stays below this many per cent")
      ->check(CLI::NonNegativeNumber);
  import->footer("Example:\n  foretoken table import --format silicon h100-llama-3.1-8b-tp1.csv --thin 0.3 --out h100.csv");
  import->callback([args, &exit_code] { exit_code = RunImport(*args);
});

CLI::App* fit = table->add_subcommand("fit", "Fit a table or an affine law to records of executed steps");
fit->add_option("RECORDS", args->in, "CSV of steps, or a batch trace in JSON Lines")->required();
fit->add_option("--law", args->law, "table or affine")->check(CLI::IsMember({"table", "affine"}));
fit->add_option("--cv", args->cv, "Folds of cross-validation")->check(CLI::Range(2, 100));
fit->add_option("--out", args->out, "CSV to write the table to");
fit->add_flag("--json", args->json, "One JSON object on stdout");
fit->footer("Example:\n  foretoken table fit steps.csv --cv 5 --out mine.csv");
fit->callback([args, &exit_code] { exit_code = RunFit(*args); });

CLI::App* show = table->add_subcommand("show", "Heat maps of a table: decode sequences x context, prefill x decode sequences");
show->add_option("TABLE", args->in, "File, or a built-in table's name")->required();
show->add_option("--html", args->html, "Write a self-contained page instead");
show->add_flag("--json", args->json, "One JSON object on stdout");
show->footer("Example:\n  foretoken table show a100-qwen2.5-7b --html table.html");
show->callback([args, &exit_code] { exit_code = RunShow(*args); });

CLI::App* compare = table->add_subcommand("compare", "How far table B is from table A, and whether it ranks steps alike");
compare->add_option("A", args->in, "File, or a built-in table's name")->required();
compare->add_option("B", args->other, "File, or a built-in table's name")->required();
compare->add_flag("--json", args->json, "One JSON object on stdout");
compare->footer("Example:\n  foretoken table compare h100-qwen2.5-7b h100-qwen3-30b-a3b");
compare->callback([args, &exit_code] { exit_code = RunCompare(*args); });
}  // namespace foretoken

}  // namespace foretoken
