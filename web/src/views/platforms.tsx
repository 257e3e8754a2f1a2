/** Chat platforms of agents: what each says of itself, and its start and stop. */
import { useEffect } from "preact/hooks";
import { type AgentPlatform, PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { agents as api, may } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { confirm } from "../parts/dialog.tsx";
import { Empty } from "../parts/empty.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo } from "../route.ts";

const rowsMax = 2_000;

const words: Record<number, [word: string, tone: string]> = {
  [PlatformStatus.STOPPED]: ["stopped", "quiet"],
  [PlatformStatus.STARTING]: ["starting", "wait"],
  [PlatformStatus.RUNNING]: ["running", "good"],
  [PlatformStatus.FAILED]: ["failed", "bad"],
};

const concerns = ({ kind }: { kind: string }) => kind.startsWith("platform.");
/** Messages in and out leave no events. */
const rereadMs = 5_000;

export function PlatformsView() {
  const reading = useReading(
    (signal) =>
      allPages(rowsMax, async (pageToken) => {
        const page = await api.listPlatforms({ pageSize: 200, pageToken }, { signal });
        return { items: page.platforms, nextPageToken: page.nextPageToken };
      }),
    [],
    concerns,
  );
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) reading.again();
    }, rereadMs);
    return () => clearInterval(timer);
  }, [reading.again]);
  const found = reading.value.value;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (found.length === 0) {
    return (
      <Empty title="No platform yet">
        <p>
          On a platform an agent answers people: Telegram, Slack, a program of yours.{" "}
          <code>pinion platforms upsert</code> makes one.
        </p>
      </Empty>
    );
  }
  return (
    <section class="sheet" aria-label="Platforms">
      <h1>Platforms</h1>
      <Table
        label="Platforms"
        items={found}
        keyOf={({ stableId }) => stableId}
        columns={[
          { title: "Platform", cell: ({ stableId }) => <b>{stableId}</b> },
          { title: "Kind", cell: ({ kind }) => kind },
          { title: "Agent", cell: ({ agentId }) => <a href={linkTo("agents", agentId)}>{agentId}</a> },
          { title: "State", cell: ({ status }) => <State status={status} /> },
          { title: "Last in", cell: ({ lastMessageInAt }) => <Moment at={lastMessageInAt} /> },
          { title: "Last out", cell: ({ lastMessageOutAt }) => <Moment at={lastMessageOutAt} /> },
          { title: "Why", class: "wide-cell", cell: (one) => <Why platform={one} /> },
          {
            title: "",
            class: "end",
            cell: (one) => (may("admin") ? <Switch platform={one} done={reading.again} /> : null),
          },
        ]}
      />
    </section>
  );
}

function State({ status }: { status: PlatformStatus }) {
  const [word, tone] = words[status] ?? ["unknown", "quiet"];
  return (
    <span class={`status ${tone}`}>
      <i aria-hidden="true" />
      {word}
    </span>
  );
}

function Moment({ at }: { at: AgentPlatform["lastMessageInAt"] }) {
  return at ? <Ago at={at} /> : <span class="muted">never</span>;
}

/** Why the platform does not run, or else its last trouble. */
function Why({ platform: { statusReason, lastError, lastErrorAt } }: { platform: AgentPlatform }) {
  if (statusReason !== "") return <span class="bad-text">{statusReason}</span>;
  if (lastError === "") return null;
  return (
    <span title={lastError}>
      {lastErrorAt && <Ago at={lastErrorAt} />} {lastError}
    </span>
  );
}

function Switch({ platform: { stableId, status }, done }: { platform: AgentPlatform; done: () => void }) {
  if (status === PlatformStatus.RUNNING || status === PlatformStatus.STARTING) {
    return (
      <button
        type="button"
        class="quiet"
        aria-label={`Stop ${stableId}`}
        onClick={() =>
          confirm({
            title: `Stop ${stableId}?`,
            text: "Messages to it wait until it is started again, where the platform keeps them.",
            action: "Stop it",
            async act() {
              await api.stopPlatform({ stableId });
              done();
              return `${stableId} is stopped.`;
            },
          })
        }
      >
        Stop
      </button>
    );
  }
  return (
    <button
      type="button"
      class="quiet"
      aria-label={`Start ${stableId}`}
      onClick={() =>
        attempt(async () => {
          try {
            await api.startPlatform({ stableId });
          } finally {
            done();
          }
          return `${stableId} runs.`;
        })
      }
    >
      Start
    </button>
  );
}
