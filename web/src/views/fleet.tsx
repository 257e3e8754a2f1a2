import { useEffect, useMemo } from "preact/hooks";
import { type Device, GrantPermission, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { fleet } from "../data/api.ts";
import { devices, sharedLabels } from "../data/devices.ts";
import { confirm, openDialog } from "../parts/dialog.tsx";
import { Empty, ListState } from "../parts/empty.tsx";
import { FilterBox } from "../parts/filter.tsx";
import { Nothing } from "../parts/nothing.tsx";
import { type Column, Rows } from "../parts/rows.tsx";
import { Status } from "../parts/status.tsx";
import { Ago, Since } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { livenessWord, osWord, runWord } from "../words.ts";
import { Offers } from "./device-offers.tsx";
import { JoinDialog } from "./join.tsx";

const liveness = [Liveness.ONLINE, Liveness.UNSTEADY, Liveness.OFFLINE, Liveness.NEVER];

export function FleetView() {
  useEffect(() => devices.show(), []);
  const text = route.value.query.get("q") ?? "";
  const only = route.value.query.get("state") ?? "";
  const all = devices.items.value;
  const matching = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return words.length === 0
      ? all
      : all.filter((device) => words.every((word) => textOf(device).includes(word)));
  }, [all, text]);
  const shown = useMemo(
    () => (only ? matching.filter((device) => livenessWord(device.liveness) === only) : matching),
    [matching, only],
  );

  if (all.length === 0 && devices.state.value !== "ready") return <ListState of={devices} />;
  if (all.length === 0) {
    return (
      <Empty title="No device yet">
        <p>A device is a machine that runs the daemon. Make a join code, and paste the command there.</p>
        <button type="button" class="primary" onClick={addDevice}>
          Add a device
        </button>
      </Empty>
    );
  }
  return (
    <>
      <div class="tools">
        <h1 class="unseen">Fleet</h1>
        <FilterBox value={text} hint="Filter devices" onInput={(value) => setQuery({ q: value })} />
        <div class="chips" role="group" aria-label="Liveness">
          <Chip name="" label="all" count={matching.length} only={only} />
          {liveness.map((value) => {
            const name = livenessWord(value);
            const count = matching.filter((device) => device.liveness === value).length;
            return <Chip key={name} name={name} label={name} count={count} only={only} />;
          })}
        </div>
        <button type="button" class="primary end" onClick={addDevice}>
          Add a device
        </button>
      </div>
      <Rows label="Devices" class="fleet" items={shown} keyOf={(device) => device.id} columns={columns} />
      {shown.length === 0 && (
        <Empty title="No device matches">
          <button type="button" onClick={() => setQuery({ q: "", state: "" })}>
            Show all {all.length}
          </button>
        </Empty>
      )}
    </>
  );
}

function Chip(props: { name: string; label: string; count: number; only: string }) {
  return (
    <button
      type="button"
      aria-pressed={props.only === props.name}
      onClick={() => setQuery({ state: props.name })}
    >
      {props.name ? <Status word={props.label} /> : props.label} <small>{props.count}</small>
    </button>
  );
}

const texts = new WeakMap<Device, string>();

/** The text searched by the filter. */
function textOf(device: Device): string {
  let text = texts.get(device);
  if (text === undefined) {
    const { label, id, os, replicaId, appVersion, agentKinds } = device;
    const kind = device.isWorker ? "fleet worker" : "";
    const words = [label, id, kind, osWord(os), livenessWord(device.liveness), replicaId, appVersion];
    text = [...words, ...agentKinds].join(" ").toLowerCase();
    texts.set(device, text);
  }
  return text;
}

const columns: Column<Device>[] = [
  { name: "state", title: "State", cell: (device) => <Status word={livenessWord(device.liveness)} /> },
  {
    name: "name",
    title: "Device",
    cell: (device, isActive) => (
      <>
        <a href={linkTo("fleet", device.id)} tabIndex={isActive ? 0 : -1}>
          {device.label}
        </a>{" "}
        <code title={device.id}>{device.id.slice(-8)}</code>
        {sharedLabels.value.has(device.label) && (
          <>
            {" "}
            <span
              class="status wait"
              title="Another device is called the same. `pinion devices rename` gives it a name of its own."
            >
              label twice
            </span>
          </>
        )}
        {device.isWorker && (
          <>
            {" "}
            <small title="Takes what is pinned to no device">fleet worker</small>
          </>
        )}
        {device.duplicate && (
          <>
            {" "}
            <span
              class="status bad"
              title="It was turned down. There: pinion device enroll --anew --join-code …"
            >
              copied to {device.duplicate.hostName || "another machine"}
            </span>
          </>
        )}
        {device.configProblem !== "" && (
          <>
            {" "}
            <span class="status bad" title={device.configProblem}>
              device.toml is wrong
            </span>
          </>
        )}
      </>
    ),
  },
  {
    name: "os",
    title: "OS",
    cell: (device) => (
      <>
        {osWord(device.os)} <small>{device.appVersion}</small>
      </>
    ),
  },
  { name: "session", title: "Session", cell: (device) => <Session device={device} /> },
  {
    name: "replica",
    title: "Replica",
    cell: (device) =>
      isOpen(device) ? <code title={device.replicaId}>{device.replicaId.slice(-8)}</code> : <Nothing />,
  },
  { name: "slots", title: "Slots", cell: (device) => <Slots device={device} /> },
  {
    name: "last",
    title: "Last run",
    cell: (device, isActive) => <LastRun device={device} isActive={isActive} />,
  },
  {
    name: "actions",
    title: "Actions",
    cell: (device, isActive) => (
      <>
        <Offers device={device} isActive={isActive} />
        {isOpen(device) && device.allowed.includes(GrantPermission.MANAGE) && (
          <button
            type="button"
            class="quiet"
            tabIndex={isActive ? 0 : -1}
            aria-label={`Disconnect ${device.label}`}
            onClick={() => disconnect(device)}
          >
            Disconnect
          </button>
        )}
        <button
          type="button"
          class="quiet warn"
          tabIndex={isActive ? 0 : -1}
          aria-label={`Delete ${device.label}`}
          onClick={() => askDelete(device)}
        >
          Delete
        </button>
      </>
    ),
  },
];

const isOpen = (device: Device) => device.connectedAt !== undefined && device.disconnectedAt === undefined;

function Session({ device }: { device: Device }) {
  if (device.sessionEpoch === 0n) return <Nothing />;
  const epoch = <small title="Sessions so far">#{String(device.sessionEpoch)}</small>;
  if (isOpen(device)) {
    return (
      <>
        <Since at={device.connectedAt} /> {epoch}
      </>
    );
  }
  return (
    <span class="muted">
      ended <Ago at={device.disconnectedAt ?? device.lastBeatAt} /> {epoch}
    </span>
  );
}

/** Used and free slots as small boxes (up to eight), and as numbers. */
function Slots({ device }: { device: Device }) {
  const { activeRuns: used, maxConcurrency: all, pendingRuns: waiting } = device;
  const boxes = Math.min(all, 8);
  const full = all === 0 ? 0 : Math.ceil((used / all) * boxes);
  return (
    <span class="slots" title={`${used} of ${all} slots used, ${waiting} waiting`}>
      <span class="boxes" aria-hidden="true">
        {Array.from({ length: boxes }, (_, index) => (
          <i key={index} class={index < full ? "used" : ""} />
        ))}
      </span>
      {used}/{all}
      {waiting > 0 && <small class="wait"> +{waiting} waiting</small>}
    </span>
  );
}

function LastRun({ device, isActive }: { device: Device; isActive: boolean }) {
  const run = device.lastRun;
  if (!run) return <Nothing />;
  return (
    <a class="last-run" href={linkTo("runs", run.id)} tabIndex={isActive ? 0 : -1}>
      <Status word={runWord(run.status)} />{" "}
      <small>
        <Ago at={run.finishedAt ?? run.startedAt ?? run.dueAt} />
      </small>
    </a>
  );
}

function addDevice(): void {
  openDialog(<JoinDialog />);
}

async function disconnect(device: Device): Promise<void> {
  await attempt(async () => {
    await fleet.disconnectDevice({ deviceId: device.id });
    return `${device.label} was asked to connect again.`;
  });
}

function askDelete(device: Device): void {
  confirm({
    title: `Delete ${device.label}?`,
    text: "Its token is revoked, its stream closed, its active runs are cancelled. Watchers pinned to it have no executor until they are pinned again. To come back, the machine has to enrol anew.",
    action: "Delete the device",
    async act() {
      const { watchersUnpinned, runsCancelled } = await fleet.deleteDevice({ deviceId: device.id });
      devices.remove(device.id);
      return `${device.label} is deleted: ${watchersUnpinned} watchers unpinned, ${runsCancelled} runs cancelled.`;
    },
  });
}
