// The API, to be read and tried: Swagger UI. In: /openapi.json. Out: its page, light or dark by the reader's own
// choice. It asks nobody but this server: its validator elsewhere is off.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", validatorUrl: null, displayRequestDuration: true });
