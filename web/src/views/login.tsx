/**
 * The sign-in request of a command on another machine: its description, and the person's decision.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type GetLoginResponse, LoginState } from "#gen/pinion/v1/sign_in_pb.js";
import { caller, explainError, isNotFound, signIns } from "../data/api.ts";
import { Empty } from "../parts/empty.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";

export function LoginView() {
  const code = route.value.query.get("code") ?? "";
  const login = useSignal<GetLoginResponse | undefined>(undefined);
  const error = useSignal("");
  const done = useSignal<"" | "confirmed" | "denied">("");
  useEffect(() => {
    login.value = undefined;
    error.value = "";
    if (code.replace(/[^A-Za-z]/g, "").length < 8) return;
    signIns.getLogin({ userCode: code }).then(
      (found) => {
        login.value = found;
      },
      (failure) => {
        error.value = isNotFound(failure)
          ? "No command waits with this code. It may be mistyped, or older than 10 minutes."
          : explainError(failure);
      },
    );
  }, [code]);

  const decide = async (confirm: boolean) => {
    try {
      await signIns.decideLogin({ userCode: code, confirm });
      done.value = confirm ? "confirmed" : "denied";
    } catch (failure) {
      error.value = explainError(failure);
    }
  };

  if (done.value !== "") return <Decided isConfirmed={done.value === "confirmed"} />;
  return (
    <section class="sheet narrow-sheet" aria-label="Log in a command">
      <h1>Log in a command</h1>
      <label class="field">
        <span>The code that it shows</span>
        <input
          class="code"
          value={code}
          placeholder="BCDF-GHJK"
          spellcheck={false}
          autocomplete="off"
          onInput={(event) => setQuery({ code: event.currentTarget.value })}
        />
      </label>
      {error.value && (
        <p class="error" role="alert">
          {error.value}
        </p>
      )}
      {login.value && <Asked login={login.value} decide={decide} />}
    </section>
  );
}

function Decided({ isConfirmed }: { isConfirmed: boolean }) {
  return (
    <Empty title={isConfirmed ? "It is logged in" : "It was turned down"}>
      <p>
        {isConfirmed
          ? "The command goes on by itself. This tab can be closed."
          : "The command gets nothing. Nobody can use its code any more."}
      </p>
      <a class="button" href={linkTo("home")}>
        To the page
      </a>
    </Empty>
  );
}

/** The request of the command, and the decision. */
function Asked({ login, decide }: { login: GetLoginResponse; decide: (confirm: boolean) => void }) {
  return (
    <>
      <p>
        <b>{login.clientName}</b> asks from <code>{login.address || "an unknown address"}</code>, since{" "}
        <Ago at={login.startedAt} />. It will do what you may do, as {caller.value?.userName || "you"}.
      </p>
      <p class="attention-text">
        Confirm only if you started it yourself, just now, and see the same code there. Whoever sent you a
        code to confirm wants to be you.
      </p>
      {login.state !== LoginState.PENDING ? (
        <p class="muted">Somebody has decided on it already.</p>
      ) : (
        <footer>
          <button type="button" onClick={() => decide(false)}>
            Turn it down
          </button>
          <button type="button" class="primary" onClick={() => decide(true)}>
            Confirm
          </button>
        </footer>
      )}
      {login.expiresAt && timestampMs(login.expiresAt) > 0 && (
        <p class="hint">
          The code expires <Ago at={login.expiresAt} />.
        </p>
      )}
    </>
  );
}
