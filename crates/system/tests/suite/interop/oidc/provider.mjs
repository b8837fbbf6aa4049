// A provider of OpenID Connect for one console: the package oidc-provider with its own pages to sign in on, where whoever gives an
// address as name is whoever has it. argv: port, client, secret, where people are sent back to.
import Provider from "oidc-provider";

const [port, client, secret, back] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const groups = { "ada@example.org": ["edge-admins"], "paul@example.org": ["paris"] };
const provider = new Provider(issuer, {
  clients: [{ client_id: client, client_secret: secret, redirect_uris: [back] }],
  claims: { openid: ["sub", "email", "email_verified", "groups"], email: [], profile: [] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: id, email_verified: true, groups: groups[id] || [] }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("standing"));
