/** Agents: identity, permissions, and changes by version. */
import { toJson } from "@bufbuild/protobuf";
import { useSignal } from "@preact/signals";
import { type Agent, type AgentSettings, AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import { agents as api, explainError, may } from "../data/api.ts";
import { labelOf } from "../data/devices.ts";
import { allPages, useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { closeDialog, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { Diff } from "../parts/diff.tsx";
import { Empty } from "../parts/empty.tsx";
import { FactList } from "../parts/fact-list.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { tell } from "../parts/toasts.tsx";
import { VersionList } from "../parts/versions.tsx";
import { linkTo } from "../route.ts";

const agentsMax = 2_000;

export function AgentsView({ id }: { id: string }) {
  return id ? <OneAgent key={id} id={id} /> : <AllAgents />;
}

function AllAgents() {
  const reading = useReading(
    () =>
      allPages(agentsMax, async (pageToken) => {
        const page = await api.listAgents({ pageSize: 200, pageToken });
        return { items: page.agents, nextPageToken: page.nextPageToken };
      }),
    [],
    ({ kind }) => kind.startsWith("agent."),
  );
  const agents = reading.value.value;
  if (!agents) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (agents.length === 0) {
    return (
      <Empty title="No agent yet">
        <p>
          An agent is who does the work: its identity, its model, its tools. <code>pinion agents create</code>{" "}
          makes one, <code>pinion apply</code> many.
        </p>
      </Empty>
    );
  }
  return (
    <section class="sheet" aria-label="Agents">
      <h1>Agents</h1>
      <Table
        label="Agents"
        items={agents}
        keyOf={(agent) => agent.id}
        columns={[
          {
            title: "Agent",
            cell: (agent) => (
              <>
                <a href={linkTo("agents", agent.id)}>
                  <b>{agent.name || agent.id}</b>
                </a>{" "}
                {agent.isDefault && <small>the default</small>}
              </>
            ),
          },
          { title: "Id", cell: (agent) => <code>{agent.id}</code> },
          {
            title: "Model",
            cell: (agent) => agent.settings?.model || <span class="muted">its executor’s</span>,
          },
          { title: "Version", class: "number", cell: (agent) => agent.version },
          { title: "Changed", cell: (agent) => <Ago at={agent.updatedAt} /> },
        ]}
      />
    </section>
  );
}

function OneAgent({ id }: { id: string }) {
  const reading = useReading(
    async (signal) => {
      const [{ agent }, { revisions }] = await Promise.all([
        api.getAgent({ agentId: id }, { signal }),
        api.listAgentRevisions({ agentId: id }, { signal }),
      ]);
      return { agent: agent!, revisions };
    },
    [id],
    ({ kind }) => kind.startsWith("agent."),
  );
  const shown = useSignal<number | undefined>(undefined);
  const found = reading.value.value;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  const { agent, revisions } = found;
  const chosen = revisions.find(({ version }) => version === shown.value);
  const before = chosen && revisions[revisions.indexOf(chosen) + 1];
  return (
    <article class="page">
      <Head agent={agent} done={reading.again} />
      <div class="panes">
        <div class="found">
          <Settings agent={agent} />
        </div>
        <div class="side">
          <section class="sheet" aria-label="Versions">
            <h2>Versions</h2>
            <VersionList revisions={revisions} shown={shown} />
            {chosen && (
              <Diff
                before={jsonOf(before?.settings)}
                after={jsonOf(chosen.settings)}
                label={`What version ${chosen.version} changed`}
              />
            )}
          </section>
          <Users agent={agent} />
        </div>
      </div>
    </article>
  );
}

function Head({ agent, done }: { agent: Agent; done: () => void }) {
  return (
    <header class="head">
      <div>
        <a class="back" href={linkTo("agents")}>
          Agents
        </a>
        <h1>{agent.name || agent.id}</h1>
        <p class="muted">
          <code>{agent.id}</code> version {agent.version}
          {agent.isDefault && ", the org’s default"} {agent.noExecutorReason}
        </p>
      </div>
      {may("admin") && (
        <div class="buttons">
          <button type="button" onClick={() => openDialog(<EditDialog agent={agent} done={done} />)}>
            Edit
          </button>
        </div>
      )}
    </header>
  );
}

/** The watchers that ask the agent. */
function Users({ agent }: { agent: Agent }) {
  const users = watchers.items.value.filter(
    ({ spec }) => spec?.agentId === agent.id || (agent.isDefault && spec?.agentId === ""),
  );
  return (
    <section class="sheet" aria-label="Watchers that ask it">
      <h2>
        Watchers that ask it <small>{users.length}</small>
      </h2>
      <ul class="versions">
        {users.slice(0, 30).map((watcher) => (
          <li key={watcher.id}>
            <a href={linkTo("watchers", watcher.slug)}>{watcher.spec?.name || watcher.slug}</a>
          </li>
        ))}
      </ul>
    </section>
  );
}

const jsonOf = (settings: AgentSettings | undefined) =>
  settings ? JSON.stringify(toJson(AgentSettingsSchema, settings), null, 2) : "";

function Settings({ agent }: { agent: Agent }) {
  const settings = agent.settings;
  const rows: [string, string][] = [
    ["model", settings?.model || "its executor’s"],
    ["device", agent.deviceId ? labelOf(agent.deviceId) : "where its watchers are pinned"],
    ["workspace", settings?.workspace ?? ""],
    ["approved tools", settings?.preApprovedTools.join(", ") ?? ""],
    ["MCP servers", settings?.mcpServers.map(({ name }) => name).join(", ") ?? ""],
    ["hosts", settings?.egressConfig?.allowedHosts.join(", ") ?? ""],
    ["providers", settings?.installedProviders.join(", ") ?? ""],
  ];
  return (
    <>
      <section class="sheet" aria-label="Identity">
        <h2>Identity</h2>
        <pre class="prompt" role="region" aria-label="Its identity" tabIndex={0}>
          {settings?.identity || "none"}
        </pre>
        {(settings?.guardrails.length ?? 0) > 0 && (
          <>
            <h3>Guardrails</h3>
            <ul class="versions">
              {settings!.guardrails.map((guardrail) => (
                <li key={guardrail}>{guardrail}</li>
              ))}
            </ul>
          </>
        )}
      </section>
      <section class="sheet" aria-label="Settings">
        <h2>Settings</h2>
        <FactList facts={rows} />
      </section>
    </>
  );
}

const linesOf = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

function EditDialog({ agent, done }: { agent: Agent; done: () => void }) {
  const draft = useSignal({
    identity: agent.settings?.identity ?? "",
    model: agent.settings?.model ?? "",
    guardrails: agent.settings?.guardrails.join("\n") ?? "",
    tools: agent.settings?.preApprovedTools.join("\n") ?? "",
  });
  const error = useSignal("");
  const save = async (event: Event) => {
    event.preventDefault();
    const { identity, model, guardrails, tools } = draft.value;
    try {
      await api.updateAgentSettings({
        agentId: agent.id,
        expectedVersion: agent.version,
        settings: { identity, model, guardrails: linesOf(guardrails), preApprovedTools: linesOf(tools) },
        updateMask: { paths: ["identity", "model", "guardrails", "pre_approved_tools"] },
      });
      closeDialog();
      done();
      tell("Saved. Runs that exist keep the version that they have.");
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  const lines = (name: "identity" | "guardrails" | "tools", label: string, rows: number) => (
    <label class="field">
      <span>{label}</span>
      <textarea
        rows={rows}
        value={draft.value[name]}
        onInput={(event) => {
          draft.value = { ...draft.value, [name]: event.currentTarget.value };
        }}
      />
    </label>
  );
  return (
    <Dialog title={`Edit ${agent.name || agent.id}`} class="wide">
      <form onSubmit={save}>
        {lines("identity", "Identity", 8)}
        <label class="field">
          <span>Model; empty: its executor’s</span>
          <input
            value={draft.value.model}
            onInput={(event) => {
              draft.value = { ...draft.value, model: event.currentTarget.value };
            }}
          />
        </label>
        {lines("guardrails", "Guardrails, one a line", 3)}
        {lines("tools", "Tools that need no approval, one a line", 3)}
        <DialogEnd action="Save" error={error.value} />
      </form>
    </Dialog>
  );
}
