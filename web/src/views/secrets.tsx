/** The state of secrets: names, versions, when each was set and used. Values are never shown. */
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { SecretHolder, type SecretState } from "#gen/pinion/v1/org_pb.js";
import { orgs } from "../data/api.ts";
import { devices, labelOf } from "../data/devices.ts";
import { allPages, useReading } from "../data/reading.ts";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, type View } from "../route.ts";

const rowsMax = 2_000;

const holders: Record<number, [word: string, view: View]> = {
  [SecretHolder.PLATFORM]: ["platform", "platforms"],
  [SecretHolder.DESTINATION]: ["destination", "destinations"],
  [SecretHolder.HOOK]: ["hook", "hooks"],
};

const concerns = ({ kind }: { kind: string }) => /^(platform|destination|hook|secrets)\./.test(kind);

export function SecretsView() {
  const reading = useReading(
    (signal) =>
      allPages(rowsMax, async (pageToken) => {
        const page = await orgs.listSecrets({ pageSize: 500, pageToken }, { signal });
        return { items: page.secrets, nextPageToken: page.nextPageToken };
      }),
    [],
    concerns,
  );
  const found = reading.value.value;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  return (
    <>
      <section class="sheet" aria-label="Secrets on the server">
        <h1>Secrets on the server</h1>
        {found.length === 0 ? (
          <p class="muted">None: no platform, destination or hook of this org has a secret.</p>
        ) : (
          <ServerSecrets secrets={found} />
        )}
      </section>
      <section class="sheet" aria-label="Secrets on devices">
        <h2>Secrets on devices</h2>
        <p class="muted">
          Names from each <code>device.toml</code>, as the device said when it connected. Their values never
          leave the device.
        </p>
        <DeviceSecrets />
      </section>
    </>
  );
}

function ServerSecrets({ secrets }: { secrets: readonly SecretState[] }) {
  return (
    <Table
      label="Secrets on the server"
      items={secrets}
      keyOf={({ holder, holderName, name }) => `${holder} ${holderName} ${name}`}
      columns={[
        { title: "Name", cell: ({ name }) => <b>{name}</b> },
        { title: "Of", cell: (secret) => <Holder secret={secret} /> },
        {
          title: "State",
          cell: ({ problem }) => (
            <span class={`status ${problem ? "bad" : "good"}`}>
              <i aria-hidden="true" />
              {problem ? "unusable" : "usable"}
            </span>
          ),
        },
        { title: "Version", cell: ({ version }) => (version > 0 ? String(version) : <None />) },
        { title: "Set", cell: ({ setAt }) => (setAt ? <Ago at={setAt} /> : <None />) },
        {
          title: "Last used",
          cell: ({ lastUsedAt }) => (lastUsedAt ? <Ago at={lastUsedAt} /> : <span class="muted">never</span>),
        },
        { title: "Kept", class: "wide-cell", cell: (secret) => <Kept secret={secret} /> },
      ]}
    />
  );
}

const None = () => <span class="muted">–</span>;

function Holder({ secret }: { secret: SecretState }) {
  const [word, view] = holders[secret.holder] ?? ["", "org"];
  return (
    <>
      {word} <a href={linkTo(view, view === "hooks" ? secret.holderName : "")}>{secret.holderName}</a>
    </>
  );
}

function Kept({ secret: { reference, keyId, pastGoodUntil, problem } }: { secret: SecretState }) {
  return (
    <>
      {reference ? (
        <>
          by the operator, as <code>{reference}</code>
        </>
      ) : (
        <>
          under the key <code>{keyId}</code>
        </>
      )}
      {pastGoodUntil && (
        <>
          ; the secret before is good until <Ago at={pastGoodUntil} />
        </>
      )}
      {problem && <p class="bad-text">{problem}</p>}
    </>
  );
}

type Declared = { device: Device; kind: string; name: string };

function DeviceSecrets() {
  const declared: Declared[] = devices.items.value.flatMap((device) =>
    device.executors.flatMap(({ kind, secretNames }) => secretNames.map((name) => ({ device, kind, name }))),
  );
  if (declared.length === 0) return <p class="muted">No device names a secret.</p>;
  return (
    <Table
      label="Secrets on devices"
      items={declared}
      keyOf={({ device, kind, name }) => `${device.id} ${kind} ${name}`}
      columns={[
        { title: "Name", cell: ({ name }) => <b>{name}</b> },
        {
          title: "Device",
          cell: ({ device }) => <a href={linkTo("fleet", device.id)}>{labelOf(device.id)}</a>,
        },
        { title: "For runs of", cell: ({ kind }) => <code>{kind}</code> },
      ]}
    />
  );
}
