// Agreeing on devices, profiles and the network between the processes of a run.
#include "job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>

#include "compiled_cache.hpp"
#include "devices.hpp"
#include "pack.hpp"
#include "shared_files.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// This process's part of the host's cores: what the launcher bound it to, or where it left all
/// local processes on the same cores, an even part of those. Fewer cores than processes are left
/// to all of them.
std::vector<int> cores_here(World& world) {
  std::vector<int> cores = usable_cores();
  std::string place = host_name();
  for (const int core : cores) place += fmt::format(" {}", core);
  const auto text = std::as_bytes(std::span(place));
  const auto places = gather_bytes(world.processes(), text);
  const auto same = std::count_if(places.begin(), places.end(), [&](const auto& other) {
    return std::equal(other.begin(), other.end(), text.begin(), text.end());
  });
  if (same < world.local_processes() || std::ssize(cores) < same) return cores;
  const Range part = split_in_proportion(
      std::ssize(cores), std::vector<double>(static_cast<std::size_t>(same),
                                             1.0))[static_cast<std::size_t>(world.local_process())];
  return {cores.begin() + part.begin, cores.begin() + part.end};
}

/// This process's GPUs: every so many of the host's, or one that it shares with other processes.
std::vector<DeviceSpec> gpus_here(const World& world) {
  std::vector<DeviceSpec> gpus;
  for (const DeviceInfo& device : list_devices()) {
    if (device.kind != DeviceKind::cuda) continue;
    DeviceSpec spec;
    spec.kind = DeviceKind::cuda;
    spec.index = device.index;
    gpus.push_back(spec);
  }
  if (gpus.empty()) return gpus;
  const auto step = static_cast<std::size_t>(world.local_processes());
  const auto first = static_cast<std::size_t>(world.local_process());
  std::vector<DeviceSpec> own;
  for (std::size_t i = first; i < gpus.size(); i += step) own.push_back(gpus[i]);
  if (own.empty()) own.push_back(gpus[first % gpus.size()]);
  return own;
}

std::vector<DeviceSpec> listed_here(const RunConfig& config, World& world) {
  const std::int64_t processes = world.processes().size();
  const std::int64_t process = world.processes().rank();
  const auto listed = std::ssize(config.devices);
  if (listed < processes) {
    throw InputError(
        fmt::format("/devices: lists {} for {} processes; list one for each, or start {} processes",
                    listed, processes, listed));
  }
  std::vector<DeviceSpec> own = {config.devices.begin() + listed * process / processes,
                                 config.devices.begin() + listed * (process + 1) / processes};
  part_gpus(own);
  const bool parts =
      std::any_of(own.begin(), own.end(), [](const DeviceSpec& spec) { return spec.sms > 0; });
  if (parts && world.local_processes() > 1) {
    throw InputError(
        fmt::format("/devices: `sms` divides a GPU between ranks of one process, and this host has "
                    "{}; start one process a host, or leave `sms` out",
                    world.local_processes()));
  }
  return own;
}

std::vector<DeviceSpec> devices_here(const RunConfig& config, World& world) {
  const std::vector<int> cores = cores_here(world);
  std::vector<DeviceSpec> specs =
      config.devices.empty() ? gpus_here(world) : listed_here(config, world);
  if (specs.empty()) specs.resize(std::max<std::size_t>(cores.size(), 1));
  const bool own_cores =
      std::ssize(usable_cores()) >= world.local_processes() || world.local_processes() == 1;
  if (own_cores) pin_cpu_ranks(cores, specs);
  return specs;
}

/// How much every rank has, by rank.
std::vector<std::int64_t> counts_of(Communicator& comm, std::int64_t own) {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(comm.size()), 1);
  std::vector<std::int64_t> counts(ones.size());
  comm.all_gather(&own, counts.data(), ones, DType::i64, nullptr);
  return counts;
}

/// What other processes need to know of a device.
template <class Archive, class Spec>
requires std::is_same_v<std::remove_const_t<Spec>, DeviceSpec>
void name_fields(Archive& archive, Spec& spec) {
  archive(spec.kind, spec.index, spec.threads, spec.sms, spec.sms_before, spec.slowdown,
          spec.slowdown_changes, spec.slowdown_by_seconds);
}

template <class Archive, class Device>
requires std::is_same_v<std::remove_const_t<Device>, RankDevice>
void name_fields(Archive& archive, Device& device) {
  archive(device.name, device.kind, device.host, device.logical);
}

/// `times` has a list for each shape.
template <class Archive, class Ranks>
requires std::is_same_v<std::remove_const_t<Ranks>, DeviceProfile>
void name_fields(Archive& archive, Ranks& rank) {
  archive(rank.device.kind, rank.device.index, rank.device.name, rank.device.threads,
          rank.device.multiprocessors, rank.device.compute_capability, rank.device.memory_bytes,
          rank.slowdown, rank.memory_limit, rank.floors);
  for (auto& times : rank.times) {
    std::size_t count = times.size();
    archive(count);
    if constexpr (!std::is_const_v<Ranks>) times.resize(count);
    for (auto& time : times) {
      archive(time.kernel, time.declined, time.seconds_per_image, time.batch);
    }
  }
}

/// All processes' profiles of their own ranks as one of all ranks.
Profile join_profiles(const Job& job, Profile own) {
  if (job.world.processes().size() == 1) return own;
  Packer packer;
  for (const DeviceProfile& rank : own.ranks) name_fields(packer, rank);
  Profile all = {own.shapes, own.shape_of_layer, {}, {}};  // chains run within one process alone
  for (const auto& bytes : gather_bytes(job.world.processes(), packer.bytes())) {
    for (Unpacker unpacker(bytes); !unpacker.exhausted();) {
      DeviceProfile& rank = all.ranks.emplace_back();
      rank.times.resize(own.shapes.size());
      name_fields(unpacker, rank);
    }
  }
  return all;
}

}  // namespace

Job make_job(const RunConfig& config, World& world) {
  if (world.processes().size() == 1) {
    std::vector<DeviceSpec> specs = resolve_devices(config);
    const Range all = {0, std::ssize(specs)};
    std::vector<RankDevice> devices;
    for (const DeviceSpec& spec : specs) devices.push_back(named(spec));
    return {world, std::move(specs), all, std::move(devices)};
  }
  const std::vector<DeviceSpec> own = devices_here(config, world);
  Packer packer;
  for (const DeviceSpec& spec : own) {
    const RankDevice device = named(spec);
    name_fields(packer, spec);
    name_fields(packer, device);
  }
  const std::vector<std::byte>& packed = packer.bytes();
  Job job = {world, {}, {}};
  const auto all = gather_bytes(world.processes(), packed);
  for (std::size_t p = 0; p < all.size(); ++p) {
    const auto first = std::ssize(job.specs);
    for (Unpacker unpacker(all[p]); !unpacker.exhausted();) {
      name_fields(unpacker, job.specs.emplace_back());
      name_fields(unpacker, job.devices.emplace_back());
    }
    if (static_cast<int>(p) == world.processes().rank()) job.here = {first, std::ssize(job.specs)};
  }
  std::copy(own.begin(), own.end(), job.specs.begin() + job.here.begin);
  return job;
}

std::vector<std::vector<std::byte>> gather_bytes(Communicator& comm,
                                                 std::span<const std::byte> own) {
  const std::vector<std::int64_t> counts = counts_of(comm, std::ssize(own));
  std::vector<std::byte> all(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  comm.all_gather(own.data(), all.data(), counts, DType::u8, nullptr);
  std::vector<std::vector<std::byte>> parts;
  auto at = all.begin();
  for (const std::int64_t bytes : counts) {
    parts.emplace_back(at, at + bytes);
    at += bytes;
  }
  return parts;
}

std::vector<std::vector<std::byte>> gather_on_first(Communicator& comm,
                                                    std::span<const std::byte> own) {
  const std::vector<std::int64_t> counts = counts_of(comm, std::ssize(own));
  std::vector<std::vector<std::byte>> parts;
  std::vector<Communicator::Message> receives;
  for (int rank = 0; comm.rank() == 0 && rank < comm.size(); ++rank) {
    auto& part = parts.emplace_back(static_cast<std::size_t>(counts[rank]));
    receives.push_back({rank, part.data(), part.size()});
  }
  // Messages have one type for both ways; what is sent is only read.
  const Communicator::Message send = {0, const_cast<std::byte*>(own.data()), own.size()};
  comm.exchange(std::span(&send, 1), receives, nullptr);
  return parts;
}

void in_turn(World& world, const std::function<void()>& task) {
  if (world.local_process() == 0) task();
  world.processes().barrier();
  if (world.local_process() != 0) task();
}

Profile profile_job(const RunConfig& config, const Model& model, const Job& job, bool refresh,
                    bool floors) {
  ProfileRequest request = profile_request(config, job.specs_here());
  if (request.memory_limit) *request.memory_limit /= job.world.local_processes();
  request.floors = floors;
  // The others of a host find what the first one has measured.
  request.refresh = refresh && job.world.local_process() == 0;
  Profile profile;
  in_turn(job.world, [&] { profile = measure_profile(model, request); });
  return join_profiles(job, std::move(profile));
}

PlanRequest plan_request(const RunConfig& config, const Job& job) {
  PlanRequest request = config.plan;
  // Within a process ranks share memory, where nothing has to be sent.
  request.own_rows = config.partition.chosen() || job.world.processes().size() > 1;
  return request;
}

CompiledModel share_compiled(const Job& job, const Model& model,
                             const std::function<CompiledModel()>& compile) {
  if (job.world.processes().size() == 1) return compile();
  CompiledModel own;
  if (job.leads()) own = compile();
  const std::string key = "shared";
  const TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  const fs::path file = folder / "compiled-shared.spdnn";
  std::vector<std::byte> bytes;
  if (job.leads()) {
    write_compiled(folder, key, model, own);
    std::ifstream in(file, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto view = std::as_bytes(std::span(text));
    bytes.assign(view.begin(), view.end());
  }
  bytes = gather_bytes(job.world.processes(), bytes)[0];
  if (job.leads()) return own;
  write_file_atomically(
      file, {reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(bytes.size())});
  std::vector<std::string> notes;
  std::optional<CompiledModel> got = read_compiled(folder, key, model, notes);
  if (!got) {
    throw CommError(fmt::format("the compiled network did not arrive: {}",
                                notes.empty() ? "no file" : notes.front()));
  }
  return *std::move(got);
}

}  // namespace spdnn
