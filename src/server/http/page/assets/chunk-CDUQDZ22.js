<<<<<<<< HEAD:src/server/http/page/assets/chunk-IEO4PFRV.js
import{Ia as r}from"./chunk-3VCAYUYQ.js";function l(){return r("svg",{class:"mark",viewBox:"0 0 32 32","aria-hidden":"true",children:[r("path",{d:"m14 2h4l.7 3.6 2.9 1.2 3-2 2.8 2.8-2 3 1.2 2.9 3.4.5v4l-3.4.7-1.2 2.9 2 3-2.8 2.8-3-2-2.9 1.2L18 30h-4l-.7-3.4-2.9-1.2-3 2-2.8-2.8 2-3-1.2-2.9L2 18v-4l3.4-.5 1.2-2.9-2-3 2.8-2.8 3 2 2.9-1.2z"}),r("circle",{cx:"16",cy:"16",r:"5"})]})}export{l as a};
========
import{Ga as r}from"./chunk-B4IWXYAO.js";function l(){return r("svg",{class:"mark",viewBox:"0 0 32 32","aria-hidden":"true",children:[r("path",{d:"m14 2h4l.7 3.6 2.9 1.2 3-2 2.8 2.8-2 3 1.2 2.9 3.4.5v4l-3.4.7-1.2 2.9 2 3-2.8 2.8-3-2-2.9 1.2L18 30h-4l-.7-3.4-2.9-1.2-3 2-2.8-2.8 2-3-1.2-2.9L2 18v-4l3.4-.5 1.2-2.9-2-3 2.8-2.8 3 2 2.9-1.2z"}),r("circle",{cx:"16",cy:"16",r:"5"})]})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-CDUQDZ22.js
