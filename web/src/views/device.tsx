/** A device: its connection, executors, runs, queue, and permissions. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type Device, GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { fleet } from "../data/api.ts";
import { devices, labelOf } from "../data/devices.ts";
import { logged } from "../data/log.ts";
import { useOffered } from "../data/offered.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { closeDialog, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { Empty } from "../parts/empty.tsx";
import { FactList } from "../parts/fact-list.tsx";
import { TextField } from "../parts/fields.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState } from "../parts/table.tsx";
import { Ago, Since } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo } from "../route.ts";
import { slotText } from "../times.ts";
import { livenessWord, osWord, upgradeWord, watcherWord } from "../words.ts";
import { Grants } from "./device-grants.tsx";
import { DeviceLog } from "./device-log.tsx";
import { Presence } from "./device-presence.tsx";
import { Over, Work } from "./device-runs.tsx";

export function DeviceView({ id }: { id: string }) {
  const reading = useReading(
    async (signal) => (await fleet.getDevice({ deviceId: id }, { signal })).device!,
    [id],
    ({ deviceId }) => deviceId === id,
  );
  useEffect(() => devices.show(), []);
  const device = devices.find(id) ?? reading.value.value;
  if (!device) {
    if (reading.error.value === "") return <ReadingState error="" again={reading.again} />;
    return (
      <Empty title="This device cannot be shown">
        <p>{reading.error.value}</p>
        <a class="button" href={linkTo("fleet")}>
          The fleet
        </a>
      </Empty>
    );
  }
  return (
    <article class="page">
      <Head device={device} />
      {device.configProblem !== "" && (
        <section class="sheet attention-text" aria-label="What is wrong">
          <b>device.toml is wrong</b>, and the configuration before it is in force: {device.configProblem}
        </section>
      )}
      {device.upgrade && device.upgrade.failedVersion !== "" && (
        <section class="sheet attention-text" aria-label="An upgrade that was undone">
          <b>The upgrade to {device.upgrade.failedVersion} was undone</b>: {device.upgrade.problem}
        </section>
      )}
      <div class="panes">
        <div class="found">
          <Work device={device} />
          <Over device={device} />
        </div>
        <div class="side">
          <About device={device} />
          <Presence device={device} />
          <Executors device={device} />
          {!device.isWorker && <Grants device={device} />}
          {device.allowed.includes(GrantPermission.MANAGE) && device.capabilities.includes("log") && (
            <DeviceLog device={device} />
          )}
          <Happened device={device} />
        </div>
      </div>
    </article>
  );
}

const isConnected = ({ connectedAt, disconnectedAt }: Device) =>
  connectedAt !== undefined && disconnectedAt === undefined;

function Head({ device }: { device: Device }) {
  const mayManage = device.allowed.includes(GrantPermission.MANAGE);
  const disconnect = () =>
    attempt(async () => {
      await fleet.disconnectDevice({ deviceId: device.id });
      return `${device.label} was asked to connect again.`;
    });
  return (
    <header class="head">
      <div>
        <a class="back" href={linkTo("fleet")}>
          Fleet
        </a>
        <h1>
          {device.label} <Status word={livenessWord(device.liveness)} />
        </h1>
        <p class="muted">
          <ConnectionText device={device} />
          {device.sessionEpoch > 0n && `, session ${device.sessionEpoch}`}
        </p>
      </div>
      <div class="buttons">
        {mayManage && (
          <button type="button" onClick={() => openDialog(<RenameDialog device={device} />)}>
            Rename
          </button>
        )}
        {mayManage && isConnected(device) && (
          <button type="button" onClick={disconnect}>
            Disconnect
          </button>
        )}
      </div>
    </header>
  );
}

function ConnectionText({ device }: { device: Device }) {
  if (isConnected(device)) {
    return (
      <>
        connected for <Since at={device.connectedAt} />
      </>
    );
  }
  if (device.sessionEpoch === 0n) return <>never connected</>;
  return (
    <>
      away since <Ago at={device.disconnectedAt ?? device.lastBeatAt} />
    </>
  );
}

function daemonText({ appVersion, upgrade }: Device, offered: string): string {
  if (appVersion === "") return "";
  const isOther = upgrade !== undefined && offered !== "" && offered !== appVersion;
  const parts = [
    appVersion,
    isOther ? `the server gives ${offered}` : "",
    upgrade ? upgradeWord(upgrade.mode) : "",
  ];
  return parts.filter(Boolean).join(", ");
}

function About({ device }: { device: Device }) {
  const offered = useOffered();
  const pinned = watchers.items.value.filter((watcher) => watcher.spec?.deviceId === device.id);
  const facts: [string, string][] = [
    ["machine", device.hostName],
    ["OS", [osWord(device.os), device.arch].filter(Boolean).join(", ")],
    ["daemon", daemonText(device, offered)],
    ["labels", [...device.labels, ...device.reportedLabels].join(", ")],
    ["id", device.id],
  ];
  return (
    <section class="sheet" aria-label="About">
      <h2>About</h2>
      <FactList facts={facts}>
        <div>
          <dt>since</dt>
          <dd>
            <Ago at={device.createdAt} />
          </dd>
        </div>
      </FactList>
      {pinned.length > 0 && (
        <>
          <h3>Pinned to it</h3>
          <ul class="versions">
            {pinned.slice(0, 20).map((watcher) => (
              <li key={watcher.id}>
                <a href={linkTo("watchers", watcher.slug)}>{watcher.spec?.name || watcher.slug}</a>
                <Status word={watcherWord(watcher.status)} />
              </li>
            ))}
            {pinned.length > 20 && <li class="muted">and {pinned.length - 20} more</li>}
          </ul>
        </>
      )}
    </section>
  );
}

function Executors({ device }: { device: Device }) {
  const { executors, workspaces, agentKinds } = device;
  return (
    <section class="sheet" aria-label="What it may run">
      <h2>What it may run</h2>
      {executors.length === 0 && agentKinds.length === 0 && <p class="muted">It has not said.</p>}
      {executors.length === 0 && agentKinds.length > 0 && <p>{agentKinds.join(", ")}</p>}
      <ul class="versions">
        {executors.map(({ kind, type, version, problem, egressProblem, secretNames }) => (
          <li key={kind}>
            <span>
              <b>{kind}</b> <small>{[type, version].filter(Boolean).join(" ")}</small>
              {(problem || egressProblem) && <div class="bad-text">{problem || egressProblem}</div>}
              {secretNames.length > 0 && <div class="muted">with its secrets {secretNames.join(", ")}</div>}
            </span>
          </li>
        ))}
      </ul>
      {workspaces.length > 0 && (
        <>
          <h3>Workspaces</h3>
          <ul class="versions">
            {workspaces.map(({ name, problem }) => (
              <li key={name}>
                <span>
                  <b>{name}</b> {problem && <span class="bad-text">{problem}</span>}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function RenameDialog({ device }: { device: Device }) {
  const label = useSignal(device.label);
  const save = async (event: Event) => {
    event.preventDefault();
    closeDialog();
    await attempt(async () => {
      await fleet.updateDevice({
        deviceId: device.id,
        label: label.value.trim(),
        updateMask: { paths: ["label"] },
      });
      devices.touch(device.id);
      return "It is renamed.";
    });
  };
  return (
    <Dialog title={`Rename ${labelOf(device.id)}`} class="narrow">
      <form onSubmit={save}>
        <TextField label="Label" value={label} required />
        <DialogEnd action="Rename" />
      </form>
    </Dialog>
  );
}

/** The device's events seen by this tab: connects and disconnects are in no log. */
function Happened({ device }: { device: Device }) {
  const events = logged.value.filter(
    ({ event }) => event.deviceId === device.id && event.kind.startsWith("device."),
  );
  if (events.length === 0) return null;
  return (
    <section class="sheet" aria-label="What happened to it">
      <h2>What happened to it</h2>
      <ol class="versions">
        {events.slice(0, 12).map(({ key, event }) => (
          <li key={key}>
            <span>{event.kind.replace("device.", "")}</span>
            <small>{event.at ? slotText(timestampMs(event.at)) : ""}</small>
          </li>
        ))}
      </ol>
    </section>
  );
}
