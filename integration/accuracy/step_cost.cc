#include "integration/accuracy/step_cost.h"

#include <filesystem>
#include <optional>
#include <utility>

#include "configs/step_table.h"
#include "integration/tables/csv.h"
#include "integration/tables/silicon.h"
#include "integration/tables/vllm_profile.h"

namespace foretoken::accuracy {

Result<LoadedStepCost> LoadStepCost(const std::string& path, const std::string& model_shape, double host_overhead_ms) {
  LoadedStepCost out;
  double overhead_ms = host_overhead_ms;
  const auto assume = [&out](std::string what) { out.assumptions.push_back(std::move(what)); };
  if (std::filesystem::is_directory(path)) {
    const Result<tables::VllmProfile> profile = tables::ReadVllmProfile(path, model_shape);
    if (!profile.ok()) return profile.error();
    for (const std::string& a : profile->assumptions) assume(a);
    Result<ProfileStepLaw> law = ProfileStepLaw::Make(profile->layers);
    if (!law.ok()) return Error{path + ": " + law.error().message};
    auto shared = std::make_shared<const ProfileStepLaw>(std::move(*law));
    out.cost.nanos = [shared](const StepComposition& step) { return shared->NanosOf(step); };
    out.by_shape = shared;
    if (overhead_ms < 0) {
      overhead_ms = 0;
      assume("no host time between steps: asynchronous scheduling hides it (--host-overhead-ms)");
    }
  } else {
    const Result<std::string> text = tables::ReadTextFile(path);
    if (!text.ok()) return text.error();
    Result<StepTimeTable> table = Error{};
    if (text->starts_with("prefill_tokens,")) {  // NVIDIA's columns
      const std::string index = path.substr(0, path.find_last_of('/') + 1) + "index.json";
      const Result<std::string> index_text = tables::ReadTextFile(index);
      Result<tables::SiliconImport> import = tables::ImportSilicon(*text, path, index_text.ok() ? *index_text : "");
      if (!import.ok()) return import.error();
      assume("step times made monotone: " + std::to_string(import->changed) + " values moved");
      table = StepTimeTable::Make(std::move(import->grid));
    } else {
      table = ParseStepTable(*text, path);
    }
    if (!table.ok()) return table.error();
    auto shared = std::make_shared<const StepTimeTable>(std::move(*table));
    out.cost.nanos = [shared](const StepComposition& step) { return shared->NanosOf(step.Shape()); };
    out.by_shape = shared;
    if (overhead_ms < 0) {
      overhead_ms = shared->Note("not_contained").has_value() ? 1.0 : 0.0;
      if (overhead_ms > 0) assume("host overhead of 1 ms per step: the table says that it contains none (--host-overhead-ms)");
    }
  }
  out.cost.host_overhead = Duration::FromSeconds(overhead_ms * 1e-3);
  return out;
}

}  // namespace foretoken::accuracy
