import { Code, ConnectError } from "@connectrpc/connect";
import { useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import {
  askCaller,
  explainError,
  isUnreachable,
  oidcName,
  signedIn,
  signIn,
  signInError,
} from "../data/api.ts";
import { Mark } from "../parts/mark.tsx";
import { replacePlace, route } from "../route.ts";

/** Explanation of a refused provider sign-in, by the reason word in the address. */
const refusals: Record<string, string> = {
  role: "The provider knows you, but none of your groups may use this server. Ask its operator for access.",
  member:
    "The provider knows you, but you are no member here. Ask an owner or admin to add your email address.",
  email: "The provider does not vouch for your email address, and you were never here before.",
  expired: "That took too long, or began in another browser. Try once more.",
  provider: "The provider did not answer, or turned the sign-in down. Try once more.",
};

/** The tries to sign in: by the link in the address at once, and by the token of the field. */
function useSignIn(input: RefObject<HTMLInputElement | null>) {
  const isTrying = useSignal(false);
  const { view, query } = route.value;
  const code = view === "sign-in" ? (query.get("code") ?? "") : "";
  const attempt = async (credential: Parameters<typeof signIn>[0]) => {
    isTrying.value = true;
    signInError.value = "";
    const to = query.get("to") ?? "";
    try {
      await signIn(credential);
      if (route.value.view === "sign-in") replacePlace(to);
    } catch (error) {
      signInError.value = whyNot(error);
      if (route.value.view === "sign-in") replacePlace(to);
      // A browser that came by a link has not been asked for its cookie yet.
      if (signedIn.value === "asking") await askCaller();
      input.current?.select();
    }
    isTrying.value = false;
  };
  useEffect(() => {
    if (code !== "") void attempt({ linkCode: code });
  }, [code]);
  const submit = (event: Event) => {
    event.preventDefault();
    const token = input.current?.value.trim() ?? "";
    if (token === "") signInError.value = "Paste a token first.";
    else if (!/^[\x21-\x7e]+$/.test(token))
      signInError.value = "This is no token: a token is one word of letters, digits and “_”.";
    else void attempt({ token });
  };
  return { isTrying, submit };
}

/**
 * Signs in by a token, a link or the configured provider. The address is kept and shown afterwards.
 */
export function SignIn() {
  const input = useRef<HTMLInputElement>(null);
  const { view, query } = route.value;
  useEffect(() => {
    document.title = "Sign in · Pinion";
    input.current?.focus();
    const refused = view === "sign-in" ? query.get("refused") : null;
    if (refused) {
      signInError.value = refusals[refused] ?? refusals.provider ?? "";
      replacePlace(query.get("to") ?? "");
    }
  }, []);
  const { isTrying, submit } = useSignIn(input);

  const place = view === "sign-in" ? "" : location.hash.slice(1);
  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>
          <Mark />
          pinion
        </h1>
        {oidcName.value !== "" && (
          <>
            <a class="button primary" href={`auth/oidc/start?to=${encodeURIComponent(place)}`}>
              Sign in with {oidcName.value}
            </a>
            <p class="or">or</p>
          </>
        )}
        <TokenField input={input} />
        <button type="submit" class={oidcName.value === "" ? "primary" : ""} disabled={isTrying.value}>
          {isTrying.value ? "Signing in…" : "Sign in"}
        </button>
        <p id="token-hint" class="hint">
          <code>npm start</code> and <code>pinion sign-ins link</code> print a link that needs no token. The
          first start wrote a token to <code>.pinion/token</code>; it is not kept in this browser.
        </p>
        <p class="hint">
          <a href="docs">Documentation</a>
        </p>
      </form>
    </main>
  );
}

/** The field of the token, and the reason of the last refusal. */
function TokenField({ input }: { input: RefObject<HTMLInputElement | null> }) {
  const error = signInError.value;
  return (
    <>
      <label for="token">Token</label>
      <input
        id="token"
        ref={input}
        type="password"
        autocomplete="off"
        spellcheck={false}
        placeholder="pin_pat_…"
        aria-invalid={error !== ""}
        aria-describedby={error ? "sign-in-error" : "token-hint"}
      />
      {error && (
        <p id="sign-in-error" class="error" role="alert">
          {error}
        </p>
      )}
    </>
  );
}

function whyNot(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.Unauthenticated && rawMessage.startsWith("the link")) {
    return "This link was used already, or is older than 5 minutes. `pinion sign-ins link` prints another.";
  }
  if (code === Code.Unauthenticated) {
    return "This token is not known here, has expired or was revoked. `pinion tokens create` makes a new one.";
  }
  if (code === Code.PermissionDenied)
    return "This token may not read. The page needs one with the scope “read”.";
  if (isUnreachable(error)) return "The server does not answer. Try again in a moment.";
  return explainError(error);
}
