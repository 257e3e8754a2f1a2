import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import type { WorkspaceInfo } from "#gen/pinion/v1/activity_pb.js";
import {
  CreateJoinCodeResponseSchema,
  DeleteDeviceResponseSchema,
  type Device,
  DeviceSchema,
  GetDeviceLogResponseSchema,
  ListDevicesResponseSchema,
} from "#gen/pinion/v1/fleet_pb.js";
import { isLoopback } from "../../../network/loopback.ts";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceId, nameOf, sharedLabels } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { programText } from "../../print/run-details.ts";
import { type Column, details, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo, parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { addGrants } from "./grants.ts";

/** `pinion devices …`: the machines of the org. */
export function addDevices(program: Command, cli: Cli): void {
  const devices = program.command("devices").description("the machines that runs are pinned to");
  addList(devices, cli);
  addGet(devices, cli);
  addLog(devices, cli);
  addRename(devices, cli);
  addLabel(devices, cli);
  addDisconnect(devices, cli);
  addDelete(devices, cli);
  addJoinCode(devices, cli);
  addGrants(devices, cli);
}

function addList(devices: Command, cli: Cli): void {
  const command = devices
    .command("list")
    .alias("ls")
    .description("list the devices, by label")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .option("--workers", "only fleet workers")
    .option("--no-workers", "only devices of people")
    .option("--with <label...>", "only devices that have all of these labels")
    .option("--label <label>", "the same, several with commas", list)
    .option("--select <condition>", "only those that match this selector of a watcher, in CEL")
    .option("--status <status>", `only these: ${words.liveness.all.join(", ")}; several with commas`, list)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{
        limit: number;
        workers?: boolean;
        with?: string[];
        label?: string[];
        select?: string;
        status?: string[];
      }>(cli, command);
      const wanted = [...(options.with ?? []), ...(options.label ?? [])];
      const filter = {
        ...(options.workers === undefined ? {} : { isWorker: options.workers }),
        labels: wanted,
        selector: options.select ?? "",
        liveness: (options.status ?? []).map((word) => words.liveness.value(word, "--status")),
      };
      await printList(cli, options, {
        schema: ListDevicesResponseSchema,
        field: "devices",
        read: (request) => clients.fleet.listDevices({ ...request, ...filter }),
        none: noDevice(options, wanted),
        columns: (devices) => deviceColumns(cli, sharedLabels(devices), options.wide === true),
      });
    });
  examples(command, [
    ["devices list", "who is there"],
    ["devices list --workers", "the fleet workers, which take what is pinned to nobody"],
    [`devices list --select 'os == "linux" && "gpu" in labels'`, "the candidates of a selector"],
    ["devices list --with gpu has:codex", "those with a label, given by people or reported by the device"],
    ["devices list --json", "the same for a program"],
  ]);
}

/** The sentence for a list without devices. */
function noDevice(
  { status, select, workers }: { status?: string[]; select?: string; workers?: boolean },
  labels: string[],
): string {
  if (status || select) return "no device is like that";
  if (labels.length > 0) return `no device has all of these labels: ${labels.map(plain).join(", ")}`;
  if (workers) return "no fleet workers; `pinion worker` runs one";
  return "no devices yet; `pinion devices join-code` makes a code with which one can enrol";
}

function deviceColumns(cli: Cli, shared: ReadonlySet<string>, isWide: boolean): Column<Device>[] {
  const columns: Column<Device>[] = [
    { header: "LABEL", cell: (device) => nameOf(device, shared), isFlexible: true },
    { header: "STATE", cell: (device) => paintedLiveness(cli, device) },
    { header: "LAST BEAT", cell: (device) => formatAgo(device.lastBeatAt) },
    { header: "RUNS", cell: (device) => `${device.activeRuns}/${device.maxConcurrency}`, align: "right" },
    {
      header: "WAITING",
      cell: (device) => (device.pendingRuns > 0 ? String(device.pendingRuns) : ""),
      align: "right",
    },
    { header: "OS", cell: (device) => words.os.word(device.os) },
    { header: "FLEET", cell: (device) => (device.isWorker ? "worker" : "") },
    { header: "LABELS", cell: (device) => device.labels.map(plain).join(","), isFlexible: true },
    { header: "ID", cell: (device) => device.id },
  ];
  if (isWide) {
    columns.push(
      { header: "EXECUTORS", cell: (device) => device.agentKinds.map(plain).join(",") },
      { header: "VERSION", cell: (device) => plain(device.appVersion) },
      { header: "EPOCH", cell: (device) => String(device.sessionEpoch), align: "right" },
      { header: "REPLICA", cell: (device) => device.replicaId },
    );
  }
  return columns;
}

function paintedLiveness(cli: Cli, device: Device): string {
  return words.paintState(cli, words.liveness.word(device.liveness));
}

function addGet(devices: Command, cli: Cli): void {
  const command = devices
    .command("get")
    .argument("<device>", "id or label")
    .description("everything about one device")
    .action(async (named: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.fleet.getDevice({ deviceId: await deviceId(clients, named) });
      printDevice(cli, told(answer.device, "device"), options.json === true);
    });
  examples(command, [["devices get mac-7", "by its label"]]);
}

function printDevice(cli: Cli, device: Device, asJson: boolean): void {
  if (asJson) {
    printJson(cli, DeviceSchema, device);
    return;
  }
  const lines = details(
    [
      ["label", plain(device.label)],
      ["id", device.id],
      ["state", paintedLiveness(cli, device)],
      [
        "duplicate",
        device.duplicate
          ? cli.colors.red(
              `${plain(device.duplicate.hostName)} has a copy of its identity and tried to connect ${formatMomentAgo(device.duplicate.seenAt)}; there: pinion device enroll --anew`,
            )
          : "",
      ],
      [
        "configuration",
        device.configProblem
          ? cli.colors.yellow(`wrong, the one before it is in force: ${plain(device.configProblem)}`)
          : "",
      ],
      ["machine", plain(device.hostName)],
      ["last beat", formatMomentAgo(device.lastBeatAt)],
      ["connected", formatMomentAgo(device.connectedAt)],
      ["disconnected", formatMomentAgo(device.disconnectedAt)],
      [
        "session",
        device.sessionEpoch > 0n ? `epoch ${device.sessionEpoch} on ${device.replicaId || "no replica"}` : "",
      ],
      [
        "runs",
        `${device.activeRuns} active of ${device.maxConcurrency} at once, ${device.pendingRuns} waiting`,
      ],
      ["executors", executorLines(cli, device).join("\n")],
      [
        "egress",
        device.executors
          .flatMap(({ kind, egressProblem }) => (egressProblem ? [plain(`${kind}: ${egressProblem}`)] : []))
          .join("\n"),
      ],
      ["workspaces", device.workspaces.map((workspace) => workspaceLine(cli, workspace)).join("\n")],
      ["capabilities", device.capabilities.map(plain).join(", ")],
      ["os", [words.os.word(device.os), plain(device.arch)].filter(Boolean).join(", ")],
      ["labels", device.labels.map(plain).join(", ")],
      ["reported labels", device.reportedLabels.map(plain).join(", ")],
      ["version", plain(device.appVersion)],
      ["installation", plain(device.installId)],
      ["owner", device.isWorker ? "none: a fleet worker" : device.ownerId],
      ["you may", device.allowed.map((permission) => words.grantPermission.word(permission)).join(", ")],
      ["enrolled", formatMomentAgo(device.createdAt)],
    ],
    cli.colors.dim,
  );
  for (const line of lines) cli.out(line);
}

/** Executors with their reported versions; only the names for a daemon without reports. */
function executorLines(cli: Cli, { executors, agentKinds }: Device): string[] {
  if (executors.length === 0) return [agentKinds.map(plain).join(", ")];
  return executors.map((executor) => {
    const trouble = executor.problem === "" ? "" : `: ${cli.colors.yellow(plain(executor.problem))}`;
    return `${plain(executor.kind)} (${plain(programText(executor))})${trouble}`;
  });
}

function workspaceLine(cli: Cli, { name, mode, problem }: WorkspaceInfo): string {
  const trouble = problem === "" ? "" : `: ${cli.colors.yellow(plain(problem))}`;
  return `${plain(name)} (${words.workspaceMode.word(mode)})${trouble}`;
}

function addLog(devices: Command, cli: Cli): void {
  const command = devices
    .command("log")
    .argument("<device>", "id or label")
    .description("the latest lines of a device's daemon, from the device itself")
    .option("--lines <n>", "how many at most", wholeNumber(1, 500), 100)
    .action(async (named: string, _options, command: Command) => {
      const { clients, options } = connect<{ lines: number }>(cli, command);
      const id = await deviceId(clients, named);
      const answer = await clients.fleet.getDeviceLog({ deviceId: id, linesMax: options.lines });
      if (options.json) return printJson(cli, GetDeviceLogResponseSchema, answer);
      if (answer.isTruncated) cli.note("…");
      for (const line of answer.text.split("\n")) cli.out(plain(line));
    });
  examples(command, [["devices log mac-7 --lines 30", ""]]);
}

function addRename(devices: Command, cli: Cli): void {
  const command = devices
    .command("rename")
    .argument("<device>", "id or label")
    .argument("<label>", "its new label")
    .description("give a device another label")
    .action(async (named: string, label: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.fleet.updateDevice({
        deviceId: await deviceId(clients, named),
        label,
        updateMask: { paths: ["label"] },
      });
      if (options.json) return printJson(cli, DeviceSchema, told(answer.device, "device"));
      cli.out(`${plain(named)} is now called ${plain(told(answer.device, "device").label)}`);
    });
  examples(command, [['devices rename mac-7 "Ada\'s laptop"', "the id stays"]]);
}

function addLabel(devices: Command, cli: Cli): void {
  const command = devices
    .command("label")
    .argument("<device>", "id or label")
    .argument("[labels...]", "labels to give it")
    .option("--remove <labels...>", "labels to take from it")
    .description("give a device labels, by which watchers select it, and take labels from it")
    .action(async (named: string, add: string[], _options, command: Command) => {
      const { clients, options } = connect<{ remove?: string[] }>(cli, command);
      const remove = options.remove ?? [];
      if (add.length + remove.length === 0) {
        throw new Failure(
          exitCodes.usage,
          "no label was named",
          "pinion devices label mac-7 gpu --remove old",
        );
      }
      const device = told(
        (
          await clients.fleet.labelDevice({
            deviceId: await deviceId(clients, named),
            ...{ add, remove },
          })
        ).device,
        "device",
      );
      if (options.json) return printJson(cli, DeviceSchema, device);
      const { labels } = device;
      cli.out(`${plain(named)} has ${labels.length > 0 ? labels.map(plain).join(", ") : "no labels"}`);
    });
  examples(command, [
    ["devices label mac-7 gpu team=web", "labels it keeps until they are removed"],
    ["devices label mac-7 --remove gpu", "selectors do not see it any more"],
  ]);
}

function addDisconnect(devices: Command, cli: Cli): void {
  const command = devices
    .command("disconnect")
    .argument("<device>", "id or label")
    .description("drain a device's stream; its daemon connects again and its runs go on")
    .action(async (named: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const id = await deviceId(clients, named);
      await clients.fleet.disconnectDevice({ deviceId: id });
      if (options.json) return cli.out(JSON.stringify({ device_id: id, disconnected: true }));
      cli.out(`${plain(named)} was asked to connect again`);
    });
  examples(command, [["devices disconnect mac-7", "for example to move it to another replica"]]);
}

function addDelete(devices: Command, cli: Cli): void {
  const command = devices
    .command("delete")
    .argument("<device>", "id or label")
    .description("remove a device: its watchers lose their executor, its token ends, its runs are cancelled")
    .action(async (named: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.fleet.deleteDevice({ deviceId: await deviceId(clients, named) });
      if (options.json) return printJson(cli, DeleteDeviceResponseSchema, answer);
      cli.out(
        `${plain(named)} is removed: ${answer.watchersUnpinned} watchers without executor, ` +
          `${answer.runsCancelled} runs cancelled`,
      );
    });
  examples(command, [["devices delete old-laptop", "it can enrol again with a new code"]]);
}

function addJoinCode(devices: Command, cli: Cli): void {
  const command = devices
    .command("join-code")
    .description("make a code with which one daemon may enrol, once")
    .option("--expires-in <length>", "how long the code is good, 1m to 7d", "15m")
    .action(async (_options, command: Command) => {
      const { clients, options, url } = connect<{ expiresIn: string }>(cli, command);
      const answer = await clients.fleet.createJoinCode({
        expiresIn: durationFromMs(parseLength(options.expiresIn, "--expires-in")),
      });
      if (options.json) return printJson(cli, CreateJoinCodeResponseSchema, answer);
      cli.out(answer.joinCode);
      cli.note(`good for one device, until ${formatMomentAgo(answer.expiresAt)}; on that machine:`);
      cli.note(`  curl -fsS ${url}/install.sh | sh -s -- ${answer.joinCode}`);
      cli.note("or, where pinion is installed:");
      cli.note(`  pinion device enroll --url ${url} --join-code ${answer.joinCode}`);
      cli.note("  pinion device run");
      if (isLoopback(new URL(url).hostname)) {
        cli.note(
          `other machines do not reach ${url}: have the server listen for them (--host, PINION_PUBLIC_URL)`,
        );
      }
    });
  examples(command, [
    ["devices join-code", "good for 15 minutes"],
    ["devices join-code --expires-in 2d", "longer, for an image that is being built"],
  ]);
}
