// Letters at the end of a job that failed.
#include "mpi_endings.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace spdnn::comm {
namespace {

constexpr int kTopic = 3;

/// How long the others may take to notice that one has failed.
constexpr double kPatience = 2.0;
/// How long the one that speaks may take to do so, on a busy host too: a launcher ends all once one
/// has ended.
constexpr auto kSpeech = std::chrono::seconds(1);

}  // namespace

Endings::Endings(MpiJob& job, int process, int processes)
    : job_(job),
      process_(process),
      told_(static_cast<std::size_t>(processes)),
      buried_(told_.size()) {
  job_.mail.serve(kTopic, [this](int from, std::span<const std::byte> letter) {
    Told told;
    std::memcpy(&told, letter.data(), sizeof told);
    const auto text = letter.subspan(sizeof told);
    {
      const std::lock_guard lock(mutex_);
      told_[from] = told;
    }
    if (told.own) {
      job_.failures.fail_all({reinterpret_cast<const char*>(text.data()), text.size()});
    }
  });
}

Endings::~Endings() { job_.mail.serve(kTopic, nullptr); }

bool Endings::all_told() {
  const std::lock_guard lock(mutex_);
  for (std::size_t p = 0; p < told_.size(); ++p) {
    if (!told_[p] && !buried_[p]) return false;
  }
  return true;
}

void Endings::bury(int process) {
  const std::lock_guard lock(mutex_);
  buried_[process] = true;
}

bool Endings::has_told(int process) {
  const std::lock_guard lock(mutex_);
  return told_[process].has_value() || buried_[process];
}

World::Ending Endings::conclude(const Told& own, const std::string& reason) {
  concluding_ = true;
  std::vector<std::byte> letter(sizeof own + reason.size());
  std::memcpy(letter.data(), &own, sizeof own);
  std::memcpy(letter.data() + sizeof own, reason.data(), reason.size());
  for (int p = 0; p < static_cast<int>(told_.size()); ++p) job_.mail.send(p, kTopic, letter);
  const double start = now_seconds();
  while (!all_told() && now_seconds() - start < kPatience) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  World::Ending ending;
  {
    const std::lock_guard lock(mutex_);
    told_[process_] = own;
    // Where nobody has an error of its own, the first one that is still there speaks.
    const auto with_own = [](const auto& told) { return told && told->own; };
    auto speaker = std::find_if(told_.begin(), told_.end(), with_own);
    if (speaker == told_.end()) {
      speaker =
          std::find_if(told_.begin(), told_.end(), [](const auto& t) { return t.has_value(); });
    }
    ending = {speaker - told_.begin() == process_, (*speaker)->status, ""};
  }
  if (!ending.speaks) std::this_thread::sleep_for(kSpeech);
  return ending;
}

}  // namespace spdnn::comm
