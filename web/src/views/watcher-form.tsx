import { timestampMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { agents, watchers as api, explainError } from "../data/api.ts";
import { deviceOptions, executorsOf, workspacesOf } from "../data/devices.ts";
import { newKey } from "../data/key.ts";
import { closeDialog, Dialog, DialogEnd } from "../parts/dialog.tsx";
import { Picker } from "../parts/picker.tsx";
import { tell } from "../parts/toasts.tsx";
import { scheduleText } from "../schedule-words.ts";
import { isSameClock, slotText, viewerZone } from "../times.ts";
import {
  catchupChoices,
  continueChoices,
  defaultChoices,
  notificationChoices,
  overlapChoices,
  responderChoices,
} from "../words.ts";
import { createNew, draftOf, FieldError, update } from "./watcher-draft.ts";
import { Choice, Field, type FieldsProps, set, Text } from "./watcher-inputs.tsx";

const previewAfterMs = 250;
const previews = 3;
const presets = [
  { schedule: "", label: "manual" },
  { schedule: "0 * * * *", label: "hourly" },
  { schedule: "0 9 * * *", label: "daily" },
  { schedule: "0 9 * * 1-5", label: "weekdays" },
  { schedule: "0 9 * * 1", label: "weekly" },
];

/** Creates or edits a watcher. An edit sends only the changed fields, with the version read. */
export function WatcherDialog({ watcher }: { watcher?: Watcher }) {
  const draft = useSignal(draftOf(watcher));
  // A second press after a lost answer returns the first request's watcher.
  const requestId = useMemo(() => newKey(), []);
  const error = useSignal("");
  const isSaving = useSignal(false);

  const save = async (event: Event) => {
    event.preventDefault();
    error.value = "";
    isSaving.value = true;
    try {
      const said = watcher ? await update(watcher, draft.value) : await createNew(draft.value, requestId);
      closeDialog();
      tell(said);
    } catch (failure) {
      error.value = failure instanceof FieldError ? failure.message : explainError(failure);
    } finally {
      isSaving.value = false;
    }
  };

  return (
    <Dialog title={watcher ? `Edit ${watcher.slug}` : "Create a watcher"} class="wide">
      <form onSubmit={save}>
        <div class="columns">
          <What draft={draft} isNew={!watcher} />
          <When draft={draft} />
        </div>
        <Limits draft={draft} />
        <Agents draft={draft} />
        <DialogEnd action={watcher ? "Save" : "Create"} error={error.value} isDisabled={isSaving.value} />
      </form>
    </Dialog>
  );
}

/** The agents of the org; none until the answer, and without the right to read agents. */
function useAgents() {
  const known = useSignal<{ value: string; label: string }[]>([]);
  useEffect(() => {
    agents
      .listAgents({ pageSize: 500 })
      .then((page) => {
        known.value = page.agents.map((agent) => ({ value: agent.id, label: agent.name || agent.id }));
      })
      .catch(() => {});
  }, []);
  return known.value;
}

function What({ draft, isNew }: FieldsProps & { isNew: boolean }) {
  const known = useAgents();
  return (
    <fieldset>
      <legend>What</legend>
      <Text draft={draft} name="name" label="Name" required />
      {isNew && <Text draft={draft} name="slug" label="Slug" hint="made from the name if empty" />}
      <Prompt draft={draft} />
      <Field label="Device">
        {(ties) => (
          <Picker
            {...ties}
            label="Device"
            none="any fleet worker"
            value={draft.value.device}
            options={deviceOptions.value}
            onChange={(value) => set(draft, "device", value)}
          />
        )}
      </Field>
      <Field label="Agent">
        {(ties) => (
          <Picker
            {...ties}
            label="Agent"
            none="the org’s default"
            value={draft.value.agent}
            options={known}
            onChange={(value) => set(draft, "agent", value)}
          />
        )}
      </Field>
      <Text
        draft={draft}
        name="agentKind"
        label="Executor"
        hint="the device’s default if empty"
        offers={executorsOf(draft.value.device)}
        mono
      />
      <Text
        draft={draft}
        name="workspace"
        label="Workspace"
        hint="the agent’s if empty"
        offers={workspacesOf(draft.value.device)}
        mono
      />
    </fieldset>
  );
}

function Prompt({ draft }: FieldsProps) {
  return (
    <Field label="Prompt">
      {(ties) => (
        <textarea
          {...ties}
          rows={7}
          required
          value={draft.value.prompt}
          onInput={(event) => set(draft, "prompt", event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

function When({ draft }: FieldsProps) {
  const { schedule, zone } = draft.value;
  return (
    <fieldset>
      <legend>When</legend>
      <Text
        draft={draft}
        name="schedule"
        label="Schedule"
        hint="cron, @every 90m or @at 2026-12-01T09:00; empty: manual only"
        mono
      />
      <div class="chips" role="group" aria-label="Common schedules">
        {presets.map((preset) => (
          <button
            key={preset.label}
            type="button"
            aria-pressed={schedule === preset.schedule}
            onClick={() => set(draft, "schedule", preset.schedule)}
          >
            {preset.label}
          </button>
        ))}
      </div>
      <Field label="Time zone">
        {(ties) => (
          <>
            <input
              {...ties}
              list={`${ties.id}-zones`}
              value={zone}
              spellcheck={false}
              onInput={(event) => set(draft, "zone", event.currentTarget.value)}
            />
            <datalist id={`${ties.id}-zones`}>
              {["UTC", ...Intl.supportedValuesOf("timeZone")].map((name) => (
                <option key={name} value={name} />
              ))}
            </datalist>
          </>
        )}
      </Field>
      <Preview schedule={schedule} zone={zone} />
    </fieldset>
  );
}

/** The schedule in words, and its next times as computed by the server. */
function Preview({ schedule, zone }: { schedule: string; zone: string }) {
  const slots = useSignal<number[]>([]);
  const error = useSignal("");
  useEffect(() => {
    slots.value = [];
    error.value = "";
    if (schedule.trim() === "") return;
    const stale = new AbortController();
    const timer = setTimeout(() => {
      api
        .previewSchedule({ schedule, timeZone: zone, count: previews }, { signal: stale.signal })
        .then((answer) => {
          slots.value = answer.slots.map(timestampMs);
        })
        .catch((failure) => {
          if (!stale.signal.aborted) error.value = explainError(failure);
        });
    }, previewAfterMs);
    return () => {
      clearTimeout(timer);
      stale.abort();
    };
  }, [schedule, zone]);
  return (
    <div class="preview" aria-live="polite">
      {error.value ? (
        <p class="error">{error.value}</p>
      ) : (
        <>
          <p>{scheduleText(schedule)}</p>
          <ol>
            {slots.value.map((at) => (
              <li key={at}>
                {slotText(at)} <small>{viewerZone}</small>
                {!isSameClock(at, zone || "UTC") && (
                  <>
                    {" · "}
                    {slotText(at, zone || "UTC")} <small>{zone || "UTC"}</small>
                  </>
                )}
              </li>
            ))}
          </ol>
        </>
      )}
    </div>
  );
}

function Limits({ draft }: FieldsProps) {
  return (
    <details>
      <summary>Limits and policies</summary>
      <div class="grid">
        <Text draft={draft} name="timeout" label="Timeout" hint="1 h if empty" />
        <Text draft={draft} name="attempts" label="Attempts" hint="1 to 20" />
        <Choice draft={draft} name="overlap" label="While one is active" choices={overlapChoices} />
        <Choice draft={draft} name="catchup" label="After downtime" choices={catchupChoices} />
        <Text draft={draft} name="catchupWindow" label="Catch-up window" hint="24 h if empty" />
        <Text draft={draft} name="jitter" label="Jitter" hint="none if empty" />
        <Text draft={draft} name="cooldown" label="Cooldown" hint="none if empty" />
        <Text draft={draft} name="startDeadline" label="Start deadline" hint="none if empty" />
        <Choice draft={draft} name="continueMode" label="Session of the agent" choices={continueChoices} />
        <Choice draft={draft} name="notification" label="Notification" choices={notificationChoices} />
      </div>
      <Field label="JSON schema of the result" hint="handed to the agent">
        {(ties) => (
          <textarea
            {...ties}
            class="mono"
            rows={3}
            spellcheck={false}
            value={draft.value.schema}
            onInput={(event) => set(draft, "schema", event.currentTarget.value)}
          />
        )}
      </Field>
      <p class="hint">Lengths are written 90s, 15m, 1h30m or 2d.</p>
    </details>
  );
}

/** What an agent may use, and what becomes of its questions. */
function Agents({ draft }: FieldsProps) {
  return (
    <details>
      <summary>Budgets and questions</summary>
      <div class="grid">
        <Text draft={draft} name="runTokens" label="Tokens of a run" hint="unbounded if empty" />
        <Text draft={draft} name="runCost" label="Dollars of a run" hint="unbounded if empty" />
        <Text draft={draft} name="dayTokens" label="Tokens of a day" hint="unbounded if empty" />
        <Text draft={draft} name="dayCost" label="Dollars of a day" hint="unbounded if empty" />
        <Text draft={draft} name="questionTimeout" label="Answer within" hint="10 min if empty" />
        <Choice draft={draft} name="questionDefault" label="Without an answer" choices={defaultChoices} />
        <Choice draft={draft} name="questionResponders" label="Who may answer" choices={responderChoices} />
        <Text draft={draft} name="questionWait" label="Timeout stands still for" hint="1 h if empty" />
      </div>
      <p class="hint">
        At a run’s budget the device stops the agent. At a day’s budget slots are skipped until midnight UTC.
      </p>
    </details>
  );
}
