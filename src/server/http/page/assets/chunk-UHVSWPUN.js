import{ta as n}from"./chunk-BNZQL5YG.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
