// Failures, and the letters that spread them.
#include "mpi_job.hpp"

#include <algorithm>
#include <cstring>
#include <set>

namespace spdnn::comm {
namespace {

/// How long what a rank sent before it left may still take.
constexpr double kArrival = 0.2;

enum GroupTopic : int { topic_failure = 1, topic_leaving = 2 };

/// A letter of a group: its number, then a text.
std::vector<std::byte> letter_of(std::uint32_t group, const void* data, std::size_t bytes) {
  std::vector<std::byte> letter(sizeof group + bytes);
  std::memcpy(letter.data(), &group, sizeof group);
  if (bytes > 0) std::memcpy(letter.data() + sizeof group, data, bytes);
  return letter;
}

std::pair<std::uint32_t, std::span<const std::byte>> open(std::span<const std::byte> letter) {
  std::uint32_t group = 0;
  std::memcpy(&group, letter.data(), sizeof group);
  return {group, letter.subspan(sizeof group)};
}

std::set<int> processes_of(const std::vector<Place>& places) {
  std::set<int> processes;
  for (const Place& place : places) processes.insert(place.process);
  return processes;
}

std::uint32_t most_groups_of(MPI_Comm comm) {
  int* largest_tag = nullptr;
  int known = 0;
  check_mpi(MPI_Comm_get_attr(comm, MPI_TAG_UB, static_cast<void*>(&largest_tag), &known),
            "MPI_Comm_get_attr");
  const int tags = known != 0 ? *largest_tag : 32767;  // what the standard promises
  return static_cast<std::uint32_t>(tags) / (channels_of_group * max_slots * max_slots);
}

}  // namespace

void Failures::fail(std::uint32_t group, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  reasons_.try_emplace(group, reason);
  any_.store(true, std::memory_order_release);
}

void Failures::fail_all(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (of_all_.empty()) of_all_ = reason;
  any_.store(true, std::memory_order_release);
}

void Failures::leave(std::uint32_t group, Place place) {
  const std::lock_guard lock(mutex_);
  left_[group].push_back({place, now_seconds()});
  any_.store(true, std::memory_order_release);
}

std::string Failures::of(const std::vector<std::uint32_t>& groups) const {
  if (!any_.load(std::memory_order_acquire)) return "";
  const std::lock_guard lock(mutex_);
  if (!of_all_.empty()) return of_all_;
  for (const std::uint32_t group : groups) {
    if (const auto found = reasons_.find(group); found != reasons_.end()) return found->second;
  }
  return "";
}

int Failures::left(std::uint32_t group, const std::vector<Place>& places) const {
  if (!any_.load(std::memory_order_acquire)) return -1;
  const std::lock_guard lock(mutex_);
  const auto found = left_.find(group);
  if (found == left_.end()) return -1;
  for (const Left& left : found->second) {
    const auto at = std::find(places.begin(), places.end(), left.place);
    if (at != places.end() && now_seconds() - left.since >= kArrival) {
      return static_cast<int>(at - places.begin());
    }
  }
  return -1;
}

MpiJob::MpiJob(MPI_Comm for_messages, MPI_Comm for_letters, std::size_t largest)
    : messages(for_messages),
      largest_message(largest),
      most_groups(most_groups_of(for_messages)),
      mail(for_letters) {
  mail.serve(topic_failure, [this](int /*from*/, std::span<const std::byte> letter) {
    const auto [group, text] = open(letter);
    failures.fail(group, std::string(reinterpret_cast<const char*>(text.data()), text.size()));
  });
  mail.serve(topic_leaving, [this](int /*from*/, std::span<const std::byte> letter) {
    const auto [group, rest] = open(letter);
    Place place;
    std::memcpy(&place, rest.data(), sizeof place);
    failures.leave(group, place);
  });
}

void MpiJob::tell_failure(const std::vector<Place>& places, std::uint32_t group,
                          const std::string& reason) {
  failures.fail(group, reason);
  const auto letter = letter_of(group, reason.data(), reason.size());
  for (const int process : processes_of(places)) mail.send(process, topic_failure, letter);
}

void MpiJob::tell_leaving(const std::vector<Place>& places, std::uint32_t group, Place who) {
  const auto letter = letter_of(group, &who, sizeof who);
  for (const int process : processes_of(places)) mail.send(process, topic_leaving, letter);
}

}  // namespace spdnn::comm
