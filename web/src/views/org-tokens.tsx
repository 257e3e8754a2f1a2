/** The tokens of an org: who made them, what they may do, and their ends. */
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { type Token, TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { caller, clientOf, explainError, may } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { Copyable } from "../parts/copy.tsx";
import { closeDialog, confirm, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { dayMs } from "../times.ts";

const rowsMax = 2_000;

const tokens = clientOf(TokenService);

const kindWords: Record<number, string> = {
  [TokenKind.PAT]: "person",
  [TokenKind.DEV]: "device",
  [TokenKind.SVC]: "service",
};

export function Tokens() {
  const showsAll = useSignal(false);
  const reading = useReading(
    () =>
      allPages(rowsMax, async (pageToken) => {
        const page = await tokens.listTokens({ pageSize: 500, pageToken });
        return { items: page.tokens, nextPageToken: page.nextPageToken };
      }),
    [],
    ({ kind }) => kind.startsWith("token."),
  );
  const found = reading.value.value;
  const shown = found?.filter(
    (token) => showsAll.value || (!token.revokedAt && token.kind !== TokenKind.DEV),
  );
  return (
    <section class="sheet" aria-label="Tokens">
      <h2>
        Tokens
        <label class="small-check">
          <input
            type="checkbox"
            checked={showsAll.value}
            onChange={(event) => {
              showsAll.value = event.currentTarget.checked;
            }}
          />
          also devices’ and revoked ones
        </label>
        {may("write") && (
          <button type="button" class="end" onClick={() => openDialog(<TokenDialog done={reading.again} />)}>
            Create a token
          </button>
        )}
      </h2>
      {!shown ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : (
        <Table
          label="Tokens"
          items={shown}
          keyOf={({ id }) => id}
          columns={[
            { title: "Label", cell: (token) => <b>{token.label}</b> },
            { title: "Of a", cell: (token) => kindWords[token.kind] ?? "" },
            {
              title: "May",
              cell: (token) => `${token.scopes.join(", ")}${token.allDevices ? ", every device" : ""}`,
            },
            {
              title: "Last used",
              cell: (token) =>
                token.lastUsedAt ? <Ago at={token.lastUsedAt} /> : <span class="muted">never</span>,
            },
            {
              title: "Expires",
              cell: (token) =>
                token.revokedAt ? (
                  <span class="muted">revoked</span>
                ) : token.expiresAt ? (
                  <Ago at={token.expiresAt} />
                ) : (
                  <span class="muted">never</span>
                ),
            },
            {
              title: "",
              class: "end",
              cell: (token) =>
                may("write") && !token.revokedAt ? <TokenActions token={token} done={reading.again} /> : null,
            },
          ]}
        />
      )}
    </section>
  );
}

function TokenActions({ token, done }: { token: Token; done: () => void }) {
  return (
    <>
      <button
        type="button"
        class="quiet"
        aria-label={`Rotate ${token.label}`}
        onClick={() =>
          confirm({
            title: `Rotate ${token.label}?`,
            text: "A successor that may do the same is made and shown once; the old one stays good for ten minutes.",
            action: "Rotate it",
            async act() {
              const { secret } = await tokens.rotateToken({ tokenId: token.id });
              done();
              openDialog(<SecretDialog secret={secret} label={token.label} />);
              return undefined;
            },
          })
        }
      >
        Rotate
      </button>
      <button
        type="button"
        class="quiet warn"
        aria-label={`Revoke ${token.label}`}
        onClick={() =>
          confirm({
            title: `Revoke ${token.label}?`,
            text: "What uses it is refused from now on, and what it holds open ends.",
            action: "Revoke it",
            async act() {
              await tokens.revokeToken({ tokenId: token.id });
              done();
              return `${token.label} is revoked.`;
            },
          })
        }
      >
        Revoke
      </button>
    </>
  );
}

/** Shows a new secret, the only time. */
function SecretDialog({ secret, label }: { secret: string; label: string }) {
  return (
    <Dialog title={`The token ${label}`}>
      <p>Copy it now: it is kept nowhere, and not shown again.</p>
      <Copyable label="the token" text={secret} />
      <footer>
        <button type="button" class="primary" onClick={closeDialog}>
          Done
        </button>
      </footer>
    </Dialog>
  );
}

const lives = [
  { days: 7, label: "7 days" },
  { days: 30, label: "30 days" },
  { days: 90, label: "90 days" },
  { days: 365, label: "a year" },
  { days: 0, label: "for ever" },
];

function TokenDialog({ done }: { done: () => void }) {
  const offered = ["read", "write", "admin", "fleet:run"].filter(
    (scope) => caller.value?.scopes.includes(scope) || (scope === "fleet:run" && may("admin")),
  );
  const label = useSignal("");
  const kind = useSignal(TokenKind.SVC);
  const scopes = useSignal<ReadonlySet<string>>(new Set(["read"]));
  const days = useSignal(may("admin") ? 90 : 7);
  const error = useSignal("");
  const create = async (event: Event) => {
    event.preventDefault();
    try {
      const { secret } = await tokens.createToken({
        kind: kind.value,
        label: label.value.trim(),
        scopes: [...scopes.value],
        ...(days.value > 0 ? { expiresIn: durationFromMs(days.value * dayMs) } : {}),
      });
      done();
      openDialog(<SecretDialog secret={secret} label={label.value.trim()} />);
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title="Create a token" class="narrow">
      <form onSubmit={create}>
        <label class="field">
          <span>Label</span>
          <input
            required
            maxLength={100}
            value={label.value}
            onInput={(event) => {
              label.value = event.currentTarget.value;
            }}
          />
        </label>
        <label class="field">
          <span>Of</span>
          <select
            value={String(kind.value)}
            onChange={(event) => {
              kind.value = Number(event.currentTarget.value);
            }}
          >
            <option value={TokenKind.SVC}>a service</option>
            <option value={TokenKind.PAT}>you</option>
          </select>
        </label>
        <label class="field">
          <span>Good for</span>
          <select
            value={String(days.value)}
            onChange={(event) => {
              days.value = Number(event.currentTarget.value);
            }}
          >
            {lives.map((life) => (
              <option key={life.days} value={life.days}>
                {life.label}
              </option>
            ))}
          </select>
        </label>
        <fieldset class="checks">
          <legend>It may</legend>
          {offered.map((scope) => (
            <label key={scope}>
              <input
                type="checkbox"
                checked={scopes.value.has(scope)}
                onChange={(event) => {
                  const next = new Set(scopes.value);
                  if (event.currentTarget.checked) next.add(scope);
                  else next.delete(scope);
                  scopes.value = next;
                }}
              />
              <b>{scope}</b>
            </label>
          ))}
        </fieldset>
        <DialogEnd action="Create it" error={error.value} isDisabled={scopes.value.size === 0} />
      </form>
    </Dialog>
  );
}
